"""Turn worked solutions into training examples (JSONL with token ids): ToRA's corpus, or what shaping kept.

arbor imitation --config configs/tora/greedy.yaml --set model_dir=DIR --rows FILE --output FILE

A row has `messages`, `prompt` and `completion`, `question` and `steps`, or several `solutions`. The configuration
names the model (its tokenizer) and the markup of rows with steps. Tool output is not learned; --learn_outputs does as
published.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from arbor.assembly import check_output, load_markup, load_tokenizer, make_folder
from arbor.commands import _options as options
from mcts.errors import UserError
from mcts.markup import MARKUPS
from models.engines.config import RunConfig
from models.training.imitation import Spelling, write_examples


@options.command(__doc__)
@options.config()
@click.option("--rows", cls=options.Several, type=options.FILE, required=True, metavar="FILE...", help="JSON lines")
@options.output("example file (never overwritten)")
@click.option("--learn_outputs", is_flag=True, help="learn what the interpreter wrote as well")
def command(config: RunConfig, rows: tuple[Path, ...], output: Path, learn_outputs: bool) -> None:
    from models.engines.text import Tokenizer

    make_folder(output.parent)
    check_output(output, new=True)
    folder, tokenizer = load_tokenizer(config)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end-of-sequence token, which a solution ends with")
    ends = MARKUPS[config.prompt_wrap].ends_with_eos
    spelling = Spelling(Tokenizer(tokenizer), tokenizer.eos_token_id, load_markup(config), ends, learn_outputs)
    print(json.dumps(write_examples(list(rows), spelling, output), indent=1), file=sys.stderr)
    print(output)

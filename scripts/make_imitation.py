"""Turns worked solutions into training examples (JSONL with token ids): ToRA's corpus, or what shaping kept.

python scripts/make_imitation.py --custom_cfg configs/tora/greedy.yaml --set model_dir=DIR --rows FILE --output FILE

A row has `messages`, `prompt` and `completion`, `question` and `steps`, or several `solutions`. The configuration
names the model (its tokenizer) and the markup of rows with steps. Tool output is not learned; --learn_outputs does as
published.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcts.config import load_config
from mcts.errors import UserError
from mcts.markup import MARKUPS
from models.training.imitation import Spelling, write_examples
from scripts.assembly import add_config_arguments, load_markup, run_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--rows", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="example file (never overwritten)")
    parser.add_argument("--learn_outputs", action="store_true", help="learn what the interpreter wrote as well")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise UserError(f"{arguments.output}: exists already; choose another --output")
    config = load_config(arguments.custom_cfg, arguments.set)
    if config.model_dir is None:
        raise UserError("model_dir is not set: name the model that will learn, such as --set model_dir=FOLDER")
    from models.engines.folder import check_model_dir
    from models.engines.text import Tokenizer, load_tokenizer

    folder = check_model_dir(config.model_dir)
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end-of-sequence token, which a solution ends with")
    ends = MARKUPS[config.prompt_wrap].ends_with_eos
    spelling = Spelling(
        Tokenizer(tokenizer), tokenizer.eos_token_id, load_markup(config), ends, arguments.learn_outputs
    )
    print(json.dumps(write_examples(arguments.rows, spelling, arguments.output), indent=1), file=sys.stderr)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)

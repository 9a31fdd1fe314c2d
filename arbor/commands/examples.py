"""Turn saved trees into training examples (JSONL with token ids), and write a data card beside them.

arbor examples --config configs/tiny/mcts_train.yaml --trees TREES.jsonl --output EXAMPLES.jsonl

--config is the configuration of the search: its markup and its model must be those that wrote the trees.
--rule correct=4 --rule wrong=4 --rule choice=spread --rule pairs=8 ... override the rules (docs/training.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from arbor.assembly import check_output, load_markup, load_tokenizer
from arbor.commands import _options as options
from mcts.config import make_keys, read_keys
from models.engines.config import RunConfig
from models.training.examples import ExampleRules, Extraction, Origin, Writer, write_examples


def extraction(config: RunConfig, rule: Sequence[str], any_model: bool) -> Extraction:
    from models.engines.folder import weights_hash
    from models.engines.text import Tokenizer

    rules = make_keys(ExampleRules, read_keys(None, rule), "--rule")
    folder, tokenizer = load_tokenizer(config)
    markup = load_markup(config)
    weights = None if any_model else frozenset({weights_hash(folder)})
    writer = Writer(Tokenizer(tokenizer), markup, rules.mask_observations, rules.value_only, rules.rewrite)
    return Extraction(rules, writer, Origin(markup, config.prompt_wrap, weights))


@options.command(__doc__)
@options.config()
@options.trees("tree files", several=True)
@options.output("example file (never overwritten)")
@click.option("--rule", multiple=True, metavar="KEY=VALUE", help="repeatable")
@click.option("--any-model", is_flag=True, help="accept trees of other models and of other systems")
def command(config: RunConfig, trees: tuple[Path, ...], output: Path, rule: tuple[str, ...], any_model: bool) -> None:
    check_output(output, new=True)
    card = write_examples(list(trees), extraction(config, rule, any_model), output)
    print(json.dumps(card["counts"], indent=1), file=sys.stderr)
    print(output)

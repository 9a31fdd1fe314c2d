"""Turns saved trees into training examples (JSONL with token ids), and writes a data card beside them.

python scripts/make_examples.py --custom_cfg configs/tiny/mcts_train.yaml --trees TREES.jsonl --output EXAMPLES.jsonl

--custom_cfg is the configuration of the search: its markup and its model must be those that wrote the trees.
--rule correct=4 --rule wrong=4 --rule choice=spread --rule pairs=8 ... override the rules (docs/training.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcts.config import make_keys, read_keys
from mcts.errors import UserError
from models.engines.config import load_config
from models.training.examples import ExampleRules, Extraction, Origin, Writer, write_examples
from scripts.assembly import add_config_arguments, load_markup, run_command


def extraction(arguments: argparse.Namespace) -> Extraction:
    from models.engines.folder import check_model_dir, weights_hash
    from models.engines.text import Tokenizer, load_tokenizer

    config = load_config(arguments.custom_cfg, arguments.set)
    rules = make_keys(ExampleRules, read_keys(None, arguments.rule), "--rule")
    if config.model_dir is None:
        raise UserError("model_dir is not set: name the model of the search, such as --set model_dir=FOLDER")
    folder = check_model_dir(config.model_dir)
    markup = load_markup(config)
    tokenizer = load_tokenizer(folder)
    weights = None if arguments.any_model else frozenset({weights_hash(folder)})
    writer = Writer(Tokenizer(tokenizer), markup, rules.mask_observations, rules.value_only, rules.rewrite)
    return Extraction(rules, writer, Origin(markup, config.prompt_wrap, weights))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--trees", type=Path, nargs="+", required=True, help="tree files")
    parser.add_argument("--output", type=Path, required=True, help="example file (never overwritten)")
    parser.add_argument("--rule", action="append", default=[], metavar="KEY=VALUE", help="repeatable")
    parser.add_argument("--any-model", action="store_true", help="accept trees of other models and of other systems")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise UserError(f"{arguments.output}: exists already; choose another --output")
    card = write_examples(arguments.trees, extraction(arguments), arguments.output)
    print(json.dumps(card["counts"], indent=1), file=sys.stderr)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)

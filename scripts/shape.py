"""Output-space shaping (ToRA) as one command: imitate, sample, let a teacher correct, train again, compare.

python scripts/shape.py --config configs/shape/tiny.yaml [--set seed=2] [--set output=DIR]

The file is one of rounds (scripts/run_rounds.py) with a block `shaping`; a round with `search` samples with it, and its
examples are the valid and the corrected solutions. The same command goes on wherever it was killed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcts.config import load_keys
from models.training.shaped_rounds import ShapingRounds, ShapingRunner
from scripts.assembly import run_command
from scripts.run_rounds import tools


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML of the rounds and of the shaping")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key; repeatable")
    arguments = parser.parse_args()
    keys = load_keys(ShapingRounds, arguments.config, arguments.set)
    runner = ShapingRunner(keys, tools(), Path(arguments.config).parent)
    runner.run()
    print(runner.output / "report.md")
    return 0


if __name__ == "__main__":
    run_command(main)

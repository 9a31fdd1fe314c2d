"""Rounds of self-training: search the training questions, grade, make examples, train, evaluate, report; again.

python scripts/run_rounds.py --config configs/rounds/tiny.yaml [--set seed=2] [--set output=DIR]

Every stage is a command of its own, which continues its own unfinished work; a finished stage leaves NAME.done and is
skipped while its inputs stay the same. So the same command goes on wherever it was killed and ends in the same place.
docs/training.md has the keys.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.data.questions import count_questions, read_questions
from eval.report.rounds import write_report
from mcts.config import load_keys
from models.training.rounds import COMMANDS, Rounds, Runner, Tools
from scripts.assembly import run_command

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"solve": "solver_demo.py", "examples": "scripts/make_examples.py", "imitation": "scripts/make_imitation.py"}


def read_answered(path: Path) -> list[dict[str, object]]:
    """The items of a question file, all of them with an answer. Raises UserError."""
    count_questions(path, need_answer=True)
    return [question.item for question in read_questions(path)]


def tools() -> Tools:
    """The stages as commands of this checkout."""
    scripts = {name: SCRIPTS.get(name, f"scripts/{name.replace('-', '_')}.py") for name in COMMANDS}
    commands = {name: [sys.executable, str(ROOT / script)] for name, script in scripts.items()}
    return Tools(commands, read_answered, write_report)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML of the rounds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key; repeatable")
    arguments = parser.parse_args()
    runner = Runner(load_keys(Rounds, arguments.config, arguments.set), tools(), Path(arguments.config).parent)
    runner.run()
    print(runner.output / "report.md")
    return 0


if __name__ == "__main__":
    run_command(main)

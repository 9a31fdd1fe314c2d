"""Output-space shaping (ToRA) as one command: imitate, sample, let a teacher correct, train again, compare.

python scripts/shape.py --config configs/shape/tiny.yaml [--set seed=2] [--set output=DIR]

The file is one of rounds (scripts/run_rounds.py) with a block `shaping`; a round with `search` samples with it, and its
examples are the valid and the corrected solutions. The same command goes on wherever it was killed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import BaseModel, ConfigDict, Field

from mcts.config import load_keys
from mcts.errors import UserError
from models.engines.config import load_config
from scripts.assembly import run_command
from scripts.correct import LIMITS
from scripts.round_report import write_report
from scripts.run_rounds import RoundKeys, Rounds, Runner, filled, overrides


class Shaping(BaseModel):
    """teacher, correct: its model and the configuration it finishes solutions with (set: overrides). The numbers are
    those of scripts/correct.py."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    teacher: str
    correct: str
    set: dict[str, Any] = {}
    keep: int = Field(4, ge=0)
    keep_corrected: int = Field(4, ge=0)
    wrong: int = Field(4, ge=0)
    enough: int = Field(4, ge=0)
    prefixes: int = Field(0, ge=0)


class ShapingRounds(Rounds):
    shaping: Shaping


class ShapingRunner(Runner):
    """Rounds whose examples are shaped solutions."""

    def __init__(self, keys: ShapingRounds) -> None:
        super().__init__(Rounds.model_validate(keys.model_dump(exclude={"shaping"})))
        places = {"output": keys.output, "seed": str(keys.seed)}
        self.shaping = Shaping.model_validate(filled(keys.shaping.model_dump(), places))
        if not self.rounds:
            raise UserError("rounds: expected at least one")
        load_config(self.shaping.correct)  # it is needed after a search, and found now

    def _run(self) -> None:
        super()._run()
        self._start()

    def _start(self) -> None:
        """Evaluates the model that everything starts from, for the report's first rows."""
        folder = self.output / "start"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        link = folder / "train" / "model"
        if not link.is_symlink():
            link.symlink_to(self.models["start"].resolve())
        one = self.rounds[0]
        for name, evaluation in (one.evaluate or {}).items():
            self._evaluate(one, folder / "evaluate", name, evaluation)
        write_report(self.output, ["start", *(known.name for known in self.rounds)])

    def _search(self, one: RoundKeys, folder: Path, model: Path) -> None:
        """Samples, corrects, and spells the solutions with the tokenizer of the model that will learn."""
        trees, solutions, examples = (folder / f"{name}.jsonl" for name in ("trees", "solutions", "examples"))
        keys = {**one.search_set, "model_dir": str(model), "seed": self.keys.seed}
        config = ["--custom_cfg", str(one.search), *overrides(keys)]
        questions = self._questions(one, folder)
        self._stage(
            folder, "search", ["python", "solver_demo.py", *config, "--qaf", str(questions), "--output", str(trees)]
        )
        own = self.shaping
        teacher = ["--custom_cfg", own.correct, *overrides({**own.set, "model_dir": own.teacher})]
        limits = [part for name in LIMITS for part in (f"--{name}", str(getattr(own, name)))]
        command = ["python", "scripts/correct.py", *teacher, *limits, "--trees", str(trees)]
        self._stage(folder, "correct", [*command, "--output", str(solutions)])
        command = ["python", "scripts/make_imitation.py", *config, "--rows", str(solutions), "--output", str(examples)]
        self._stage(folder, "examples", command, clean=[examples])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML of the rounds and of the shaping")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key; repeatable")
    arguments = parser.parse_args()
    runner = ShapingRunner(load_keys(ShapingRounds, arguments.config, arguments.set))
    runner.run()
    print(runner.output / "report.md")
    return 0


if __name__ == "__main__":
    run_command(main)

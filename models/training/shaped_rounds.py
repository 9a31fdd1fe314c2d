"""Output-space shaping (ToRA) in rounds: imitate, sample, let a teacher correct, train again, compare.

The file is one of rounds with a block `shaping`; a round with `search` samples with it, and its examples are the valid
and the corrected solutions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from mcts.errors import UserError
from models.engines.folder import content_hash
from models.training.rounds import RoundKeys, Rounds, Runner, Tools, filled, overrides
from models.training.shaping import Limits
from models.training.stages import digest


class Shaping(Limits):
    """teacher, correct: its model and the configuration it finishes solutions with (set: overrides)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    teacher: str
    correct: str
    set: dict[str, Any] = Field(default_factory=dict)


class ShapingRounds(Rounds):
    shaping: Shaping


class ShapingRunner(Runner):
    """Rounds whose examples are shaped solutions."""

    def __init__(self, keys: ShapingRounds, tools: Tools, source: Path = Path()) -> None:
        super().__init__(Rounds.model_validate(keys.model_dump(exclude={"shaping"})), tools, source)
        places = {"output": keys.output, "seed": str(keys.seed)}
        own = Shaping.model_validate(filled(keys.shaping.model_dump(), places))
        found = {"teacher": self._found(own.teacher), "correct": self._found(own.correct)}
        self.shaping = own.model_copy(update=found)
        if not self.rounds:
            raise UserError("rounds: expected at least one")
        if any(one.trees is not None for one in self.rounds):
            raise UserError("rounds: trees: shaping samples its own solutions")
        self._configuration(self.shaping.correct, self.shaping.set)  # it is needed after a search, and found now

    def _run(self) -> None:
        super()._run()
        self._start()

    def _start(self) -> None:
        """Evaluates the model that everything starts from, for the report's first rows."""
        folder = self.output / "start"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        link = folder / "train" / "model"
        if link.is_symlink():
            link.unlink()
        link.symlink_to(self.models["start"].resolve())
        one = self.rounds[0]
        for name, row in one.rows():
            self._evaluate(one, folder / "evaluate", name, row)
        self.tools.report(self.output, ["start", *(known.name for known in self.rounds)])

    def _search(self, one: RoundKeys, folder: Path, model: Path) -> None:
        """Samples, corrects, and spells the solutions with the tokenizer of the model that will learn."""
        assert one.search is not None
        trees, solutions, examples = (folder / f"{name}.jsonl" for name in ("trees", "solutions", "examples"))
        keys = {**one.search_set, "model_dir": str(model), "seed": self.keys.seed}
        config = ["--custom_cfg", one.search, *overrides(keys)]
        questions = self._questions(one, folder)
        command = self._command("solve", *config, "--qaf", questions, "--output", trees, launch=one.search_launch)
        inputs = self._searching(one.search, keys, model, questions)
        self.stages.run(folder, "search", command, inputs, [trees], continues=True)
        self._correct(folder, trees, solutions)
        command = self._command("imitation", *config, "--rows", solutions, "--output", examples)
        inputs = {"solutions": content_hash(solutions), **self._spelling(one.search, keys, model)}
        self.stages.run(folder, "examples", command, inputs, [examples])

    def _correct(self, folder: Path, trees: Path, solutions: Path) -> None:
        own = self.shaping
        limits = own.limits()
        keys = {**own.set, "model_dir": own.teacher}
        words = [part for name, value in limits.items() for part in (f"--{name}", str(value))]
        command = self._command("correct", "--custom_cfg", own.correct, *overrides(keys), *words, "--trees", trees)
        inputs = {
            "trees": content_hash(trees),
            "limits": digest(limits),
            "configuration": self._configuration(own.correct, keys).fingerprint(),
            "teacher": content_hash(own.teacher),
        }
        self.stages.run(folder, "correct", [*command, "--output", str(solutions)], inputs, [solutions], continues=True)

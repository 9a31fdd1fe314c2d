"""A run over questions: its bar, its running accuracy, and why questions have no answer."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

from arbor.assembly import choose_seed, open_solver
from arbor.commands._live import Display, SearchFacts
from arbor.commands._running import when_stopped
from arbor.commands._tracking import Tracker
from mcts.errors import UserError
from mcts.model import LanguageModel
from mcts.question import Question
from mcts.search.driver import Solver, run_file
from mcts.trees.file import TreeWriter
from mcts.trees.node import TOO_LONG
from models.engines.config import RunConfig

Verdict = Callable[[Mapping[str, Any]], bool | None]
T = TypeVar("T")


def graded(record: Mapping[str, Any]) -> bool | None:
    """Whether a record's prediction is right; None where it was not graded. No prediction is a wrong one."""
    if record.get("answer") is None:
        return None
    return (record.get("prediction") or {}).get("correct", False) is True


class Progress:
    """Counts records, those of a run that is continued too. verdict: what a record says of its answer.

    live: `--live`, the facts of the run instead of a bar. unit: what is counted. total: None where it is not known.
    """

    def __init__(
        self,
        total: int | None,
        verdict: Verdict = graded,
        name: str = "",
        *,
        live: bool = False,
        unit: str = "question",
    ) -> None:
        self.total, self.name, self.unit, self._verdict = total, name, unit, verdict
        self._live = live
        self._facts: SearchFacts | None = None
        self._shown: Any = None  # the bar or the display, while there is one
        self.tracker: Tracker | None = None
        self.done = self.right = self.graded = 0
        self.reasons = Counter[str]()

    def see(self, record: Mapping[str, Any]) -> None:
        """Counts a record that was there before."""
        self.done += 1
        if (right := self._verdict(record)) is not None:
            self.graded += 1
            self.right += right
        if reason := (record.get("meta") or {}).get("no_answer"):
            self.reasons[str(reason)] += 1

    def tick(self, record: Mapping[str, Any]) -> None:
        self.see(record)
        if self.tracker is not None:
            self.tracker.log(self, record)
        if self._facts is None:
            self._show()
            self._shown.update()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items one after another, each counted when the next one is asked for."""
        with self:
            for item in items:
                yield item
                self.tick({})

    def attach(self, solver: Solver) -> None:
        """What is searched with, for the display of the run."""
        if self._facts is not None:
            self._facts.attach(solver)

    def __enter__(self) -> Self:
        if self._live:
            self._facts = SearchFacts(self)
            self._shown = Display(self._facts).__enter__()
            return self
        self._shown = tqdm(total=self.total, initial=self.done, unit=self.unit, smoothing=0.1, desc=self.name or None)
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._shown.__exit__(kind, error, trace)
        if self.tracker is not None:
            self.tracker.finish()

    def _show(self) -> None:
        if self.graded:
            self._shown.set_postfix_str(f"right {self.right}/{self.graded}", refresh=False)

    def kept(self, path: Path) -> str:
        """What the line after Ctrl-C says."""
        return f"{path} keeps {self.done} of {self.total} questions, and the same command goes on from there"

    def conclude(self, path: Path) -> None:
        """Says the accuracy, and why questions have no answer, a line each on standard error. Raises UserError where no
        question at all could be searched."""
        if self.graded:
            print(f"right {self.right} of {self.graded} graded", file=sys.stderr)
        if count := self.reasons.total():
            reasons = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
            print(f"no answer to {count} of {self.done} questions: {reasons}", file=sys.stderr)
        if self.done and self.reasons[TOO_LONG] == self.done:
            raise UserError(
                f"{path}: no question could be searched: {TOO_LONG}; "
                "expected a model with a larger window, or fewer worked examples (num_few_shot)"
            )


def search_all(
    config: RunConfig,
    model: LanguageModel,
    questions: Iterable[Question],
    writer: TreeWriter,
    meta: dict[str, Any],
    progress: Progress,
    wrap: Callable[[Solver], Any] = lambda solver: solver,
) -> None:
    """Searches what an open `writer` does not hold yet, under the bar. wrap: makes what writes the rows of a solver."""

    async def run() -> None:
        async with open_solver(config, model, meta, choose_seed(config, writer)) as solver:
            progress.attach(solver)
            await run_file(wrap(solver), questions, writer, config.questions_in_flight, progress.tick)

    with when_stopped(lambda: progress.kept(writer.path)), progress:
        asyncio.run(run())

"""Counts of right and wrong answers, with their interval, as the commands print them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.data.questions import read_answers
from eval.grading.grader import grade_async
from eval.report.scores import wilson
from mcts.errors import UserError


@dataclass
class Tally:
    """undecided: the grader could not tell; they count in the total, never as right."""

    right: int = 0
    total: int = 0
    unanswered: int = 0
    undecided: int = 0

    async def add(self, record: Mapping[str, Any], answer: str | None, where: str) -> None:
        """Grades one line's answer. Raises UserError for a line that says no right answer."""
        accepted = gold_answers(where, record)
        verdict = False if answer is None else (await grade_async(accepted, answer)).equal
        self.total += 1
        self.right += verdict is True
        self.unanswered += answer is None
        self.undecided += verdict is None

    def __str__(self) -> str:
        extra = f", {self.unanswered} without an answer" if self.unanswered else ""
        extra += f", {self.undecided} undecided" if self.undecided else ""
        share = 100 * self.right / self.total
        interval = "–".join(f"{bound:.1f}" for bound in wilson(self.right, self.total))
        return f"{self.right} of {self.total} right, accuracy {share:.2f} % (95 %: {interval}){extra}"


def gold_answers(where: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The accepted answers of a line. Raises UserError where there is none to grade against."""
    accepted = read_answers(record, where)
    if not accepted:
        raise UserError(f'{where}: no "answer" to grade against')
    return accepted

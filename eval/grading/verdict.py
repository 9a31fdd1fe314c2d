"""The outcome of a comparison: three verdicts and the reason for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """EQUAL and DIFFERENT are proved; UNDECIDED is everything else."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"  # never a negative: a limit was reached, or the answers admit more than one reading


@dataclass(frozen=True)
class Grade:
    """A verdict and, in one short line, the rule or the limit that produced it."""

    verdict: Verdict
    reason: str

    @property
    def equal(self) -> bool | None:
        """True, False, or None for undecided: the form in which a search takes a grade."""
        return None if self.verdict is Verdict.UNDECIDED else self.verdict is Verdict.EQUAL


def equal(reason: str) -> Grade:
    return Grade(Verdict.EQUAL, reason)


def different(reason: str) -> Grade:
    return Grade(Verdict.DIFFERENT, reason)


def undecided(reason: str) -> Grade:
    return Grade(Verdict.UNDECIDED, reason)

"""Whether a prediction is the gold answer: equal, different or undecided, with the reason."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import lru_cache

from eval.numbers import read_number, same_number
from eval.verdict import Grade, Verdict, different, equal, undecided
from eval.worker import shared_workers

__all__ = ["Grade", "Verdict", "grade", "grade_async"]

MAX_LENGTH = 2000


def grade(gold: str | Sequence[str], prediction: str, policy: str = "default") -> Grade:
    """Compare a prediction with a gold answer or with each of several accepted ones; any match is equal.

    Synchronous, bounded in time, callable from any thread. Raises ValueError for an unknown policy.
    """
    golds = [gold] if isinstance(gold, str) else list(gold)
    grades = [_grade_one(one, prediction, policy) for one in golds]
    for verdict in (Verdict.EQUAL, Verdict.UNDECIDED):
        for found in grades:
            if found.verdict is verdict:
                return found
    return grades[0] if grades else undecided("no gold answer is given")


async def grade_async(gold: str | Sequence[str], prediction: str, policy: str = "default") -> Grade:
    """`grade` without blocking the event loop."""
    return await asyncio.to_thread(grade, gold, prediction, policy)


@lru_cache(maxsize=65536)
def _grade_one(gold: str, prediction: str, policy: str) -> Grade:
    if len(gold) > MAX_LENGTH or len(prediction) > MAX_LENGTH:
        return equal("the same text") if gold.strip() == prediction.strip() else undecided("an answer is too long")
    quick = compare_plain(gold, prediction)
    return quick or shared_workers(os.getpid()).compare(gold, prediction, policy)


def compare_plain(gold: str, prediction: str) -> Grade | None:
    """The verdict on pairs that need no computer algebra: the same text, or two plain numbers."""
    if gold.strip() == prediction.strip():
        return equal("the same text") if gold.strip() else undecided("both answers are empty")
    if not prediction.strip():
        return different("the prediction is empty")
    first, second = read_number(gold), read_number(prediction)
    if first is None or second is None:
        return None
    reason = same_number(first, second)
    return equal(reason) if reason else different("different numbers")


def _default(gold: str, prediction: str) -> Grade:
    return compare_plain(gold, prediction) or undecided("not a pair of plain numbers")


POLICIES: dict[str, Callable[[str, str], Grade]] = {"default": _default}


def compare_here(gold: str, prediction: str, policy: str) -> Grade:
    """One comparison in this process, without limits: what a worker runs."""
    return POLICIES[policy](gold, prediction)

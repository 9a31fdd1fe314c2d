"""What each policy decides about one pair, in this process and without limits: what a grading worker runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.grading.mario import grade_mario
from eval.grading.tora import grade_tora
from eval.grading.verdict import Grade, different, equal, undecided


def _compare(gold: str, prediction: str, exact: bool) -> Grade:
    from eval.grading.compare import same
    from eval.grading.prose import complete, in_prose
    from eval.grading.reading import read

    first, second = read(gold), read(prediction)
    kinds = " and ".join(type(answer).__name__.lower() for answer in (first, second))
    decision = same(first, second, exact)
    if decision is not True and not (complete(first) and complete(second)):
        decision = in_prose(gold, prediction, exact, decision)
        kinds = "text"
    if exact and decision is False and (same(first, second, False) or same(second, first, False)):
        decision = None  # equal but for a unit, a name or rounding, which `strict` does not take as proof
    if decision is None:
        return undecided(f"{kinds}: no rule settles the pair")
    return equal(f"{kinds} of the same meaning") if decision else different(f"{kinds} of different meaning")


PROFILES: dict[str, Callable[[str, str], Grade]] = {"tora": grade_tora, "mario": grade_mario}
POLICIES: dict[str, Callable[[str, str], Grade]] = {
    "default": partial(_compare, exact=False),
    "strict": partial(_compare, exact=True),
    **PROFILES,
}


def compare_here(gold: str, prediction: str, policy: str) -> Grade:
    """One comparison in this process, without limits. Never raises."""
    try:
        return POLICIES[policy](gold, prediction)
    except (Exception, RecursionError, MemoryError) as error:
        return undecided(f"the comparison failed: {type(error).__name__}")

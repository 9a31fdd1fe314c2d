"""Scores with intervals: accuracy, votes, best of n, pass@k, and the columns that make methods comparable.

A graded answer is True, False or None. An undecided answer is never right: accuracy counts it in the denominator
and reports how many there are, so that the reader sees by how much the figure could rise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import comb, sqrt

Z95 = 1.959963984540054

# ToRA's "AVG@10": four of the ten sets are the MAWPS subsets, which enter once, pooled.
AVG10 = ("gsm8k", "math", "gsm-hard", "svamp", "tabmwp", "asdiv", "mawps")


@dataclass(frozen=True)
class Score:
    """A share in per cent with its 95 % interval; `n` questions, `undecided` of them without a verdict."""

    percent: float
    low: float
    high: float
    n: int
    undecided: int = 0

    def __str__(self) -> str:
        return f"{self.percent:.2f} [{self.low:.2f}, {self.high:.2f}]"


def accuracy(grades: Iterable[bool | None]) -> Score:
    """Share of True, with the Wilson score interval."""
    found = list(grades)
    low, high = wilson(sum(grade is True for grade in found), len(found))
    right = sum(grade is True for grade in found)
    return Score(100 * right / len(found) if found else 0.0, low, high, len(found), found.count(None))


def wilson(right: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of right/n, in per cent; the share lies in it, rounding or not."""
    if n == 0:
        return 0.0, 100.0
    share, z2 = right / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return 100 * min(share, max(0.0, centre - half)), 100 * max(share, min(1.0, centre + half))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """How often only the first and only the second of two paired lists is true, and the exact two-sided p-value of
    McNemar's test that both are equally likely."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(n, i) for i in range(k + 1)) / 2**n
    return only_first, only_second, min(1.0, 2 * tail)


def mean_score(shares: Sequence[float]) -> Score:
    """The mean over questions of numbers in [0, 1] (pass@k, mean of samples), normal interval over the questions."""
    n = len(shares)
    mean = sum(shares) / n if n else 0.0
    spread = sqrt(sum((share - mean) ** 2 for share in shares) / (n - 1) / n) if n > 1 else 0.5
    return Score(100 * mean, 100 * max(0.0, mean - Z95 * spread), 100 * min(1.0, mean + Z95 * spread), n)


def pass_at_k(n: int, right: int, k: int) -> float:
    """The unbiased estimate of the chance that one of k samples is right, from `right` of n (Chen et al. 2021)."""
    if not 0 < k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {n}")
    return 1.0 - comb(n - right, k) / comb(n, k)


def by_group(keys: Sequence[Hashable], grades: Sequence[bool | None]) -> dict[str, Score]:
    """Accuracy for each value of a field (type, level), sorted by its name."""
    groups: dict[str, list[bool | None]] = defaultdict(list)
    for key, grade in zip(keys, grades, strict=True):
        groups[str(key)].append(grade)
    return {name: accuracy(groups[name]) for name in sorted(groups)}


def avg_at_10(scores: dict[str, float]) -> float:
    """ToRA's AVG@10: the plain mean of seven figures, MAWPS pooled. Raises ValueError naming what is missing."""
    if missing := [name for name in AVG10 if name not in scores]:
        raise ValueError(f"AVG@10 needs the figures of {', '.join(missing)} as well")
    return sum(scores[name] for name in AVG10) / len(AVG10)

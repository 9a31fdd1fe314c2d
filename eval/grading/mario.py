"""The profile `mario`: the decisions of the published MARIO toolkit, for reproducing its figures only.

Four readings of both sides are tried and any match accepts, so every leniency adds up: tolerances on integers,
letters of a word as factors, units deleted, lists as sets without multiplicity. `default` does none of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from eval.grading.text import clean
from eval.grading.verdict import Grade, different, equal

TOLERANCE = 1e-3
_LONG = re.compile(
    r"(?i)(?:centimeter|millimeter|kilometer|meter|square|inch|feet|foot|yard|mile|kilogram|gram|pound|ounce|liter|second"
    r"|minute|hour|day|week|month|year|dollar|cent|degree|unit)(?:es|s)?(?:\^\{?\d\}?)?"
)
_SHORT = re.compile(r"(?<=[\d}) ])\s+(?:cm|mm|km|kg|mg|ft|in|am|pm|lb|oz|mi|yd|m|g|l|L)(?:\^\{?\d\}?)?$")
_NORMAL = [
    (r"\$|\\\$|\\ ", ""),
    (r"\\text\{\s*(?:and|or)\s*\}|(?<= )(?:and|or)(?= )", ","),
    (r"^\S+\s*\\in(?![a-zA-Z])", ""),
    (r"^\\\{\s*\w\s*\|(.*)\\\}$", r"\1"),
    (r"(begin|end)\{(?:cases|array)\}(?:\{[clr]*\})?", r"\1{matrix}"),
    *(
        (rf"\\text\{{\s*{word}\s*\}}|{word}", f"*10^{{{n}}}")
        for word, n in (("million", 6), ("billion", 9), ("trillion", 12))
    ),
]


def grade_mario(gold: str, prediction: str) -> Grade:
    """Equal if any of the four passes says so; this profile knows no undecided."""
    if gold.strip() == prediction.strip():
        return equal("the same text")
    if prediction.strip() and any(_pass(gold, prediction, readings) for readings in _PASSES):
        return equal("equal under the mario profile")
    return different("different under the mario profile")


def _pass(gold: str, prediction: str, readings: Callable[[str], list[str]]) -> bool:
    return any(_same(first, second) for first in readings(gold) for second in readings(prediction))


def _normal(text: str, spaces: bool, lower: bool) -> list[str]:
    """The readings of one text: several for percent, degrees, number bases and clock times."""
    text = clean(text)
    for pattern, replacement in _NORMAL:
        text = re.sub(pattern, replacement, text)
    if match := re.fullmatch(r"(\d{1,2})(?::(\d{2}))?\s*(?:\\text\{)?\s*([ap])\.?m\.?\s*\}?", text.strip().lower()):
        hour, minute = int(match[1]), int(match[2] or 0)
        return [f"[{one},{minute}]" for one in {hour, hour + 12 * (match[3] == "p" and hour < 12)}]
    text = re.sub(r"\\(?:text|mbox)\{[^{}]*\}", "", _SHORT.sub("", _LONG.sub("", text)))
    if not spaces:
        text = re.sub(r"(?<=\d),\s*(?=\d{3}(?!\d))", "", re.sub(r"(\d) (?=\d+/\d)", r"\1+", text))
        text = re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", text)
    return _marks(text.lower() if lower else text)


def _marks(text: str) -> list[str]:
    """Digits of a base as written and by value, even digits the base does not have; N% as N and N/100; degrees."""
    if match := re.fullmatch(r"\s*(\d[0-9a-zA-Z]*|[A-Fa-f]+)_\{?(\d+)\}?\s*", text):
        value = sum(int(digit, 36) * int(match[2]) ** place for place, digit in enumerate(reversed(match[1])))
        return [match[1], str(value)]
    if match := re.fullmatch(r"\s*(-?[\d.]+)\s*\\?%\s*", text):
        return [f"{match[1]}/100", match[1]]
    if match := re.fullmatch(r"(.+?)\^\{?\s*\\circ\s*\}?\s*", text):
        return [match[1], rf"({match[1]})/180*\pi"]
    return [text]


_PASSES: list[Callable[[str], list[str]]] = [
    lambda text: _normal(text, spaces=False, lower=True),
    lambda text: _normal(text, spaces=True, lower=True),
    lambda text: _normal(text, spaces=True, lower=False),
    lambda text: [re.sub(r"(?<=\d)\s*(?=\\frac)", " * ", text)],
]


def _same(gold: str, prediction: str) -> bool:
    """Identical, else unions of intervals, else split by brackets and commas, else the algebra."""
    if gold == prediction:
        return True
    if not prediction.strip():
        return False
    if _region(gold) is not None and _region(gold) == _region(prediction):
        return True
    first, second = _split(gold), _split(prediction)
    if not first or not second:
        return _algebra(gold, prediction)
    if first[0] != second[0] or len(first[1]) != len(second[1]):
        return False
    if first[0] == "{}":
        return all(any(_same(one, other) for other in second[1]) for one in first[1])
    return all(map(_same, first[1], second[1]))


def _split(text: str) -> tuple[str, list[str]] | None:
    """Brackets and parts of a list; a bare list is a set of texts, so repetitions vanish."""
    from eval.grading.splitting import split_top

    match = re.fullmatch(r"\s*(\(|\[|\\\{)(.*)(\)|\]|\\\})\s*", text, re.DOTALL)
    brackets = match[1][-1] + match[3][-1] if match else "{}"
    parts = split_top(match[2] if match else text, ",")[0]
    if len(parts) < 2 or not all(parts):
        return None
    return brackets, list(dict.fromkeys(parts)) if brackets == "{}" else parts


def _region(text: str) -> Any:
    """The sympy set of intervals joined by a union sign; None for anything else."""
    import sympy

    parts = [re.fullmatch(r"\s*([(\[])([^,]+),([^,]+)([)\]])\s*", part) for part in re.split(r"\\cup|\\bigcup", text)]
    found = [(part, _value(part[2]), _value(part[3])) for part in parts if part]
    if len(found) < len(parts) or not all(
        getattr(end, "is_extended_real", False) for _, *ends in found for end in ends
    ):
        return None
    intervals = [sympy.Interval(low, high, one[1] == "(", one[4] == ")") for one, low, high in found]
    return None if sympy.S.EmptySet in intervals else sympy.Union(*intervals)


def _value(text: str) -> Any:
    """The text as an expression whose unknown words are products of letters and whose colons divide; None if not."""
    from eval.grading.latex import FUNCTIONS, Unreadable, parse_expression

    text = re.sub(r"(?<=\d)\s*:\s*(?=\d)", "/", re.sub(r"(?<=\d)e([-+]?\d+)", r"*10^{\1}", text.strip()))
    known = re.compile(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+|[a-zA-Z]{2,}")
    kept = {*FUNCTIONS, "pi", "oo"}
    text = known.sub(lambda m: m[0] if m[0][0] == "\\" or m[0] in kept else " ".join(m[0]), text)
    try:
        return parse_expression(text)
    except Unreadable:
        return None


def _algebra(gold: str, prediction: str) -> bool:
    """Relations by their kind, everything else by value."""
    sides = [re.split(r"(<|>|=|\\(?:le|ge|neq)(?![a-z]))", text) for text in (gold, prediction)]
    if all(len(parts) == 3 and parts[1] != "\\neq" for parts in sides):
        return _same_relation(*sides)
    if any(len(parts) > 1 and parts[1] != "=" for parts in sides):
        return False
    return _equal_values(*(_value(parts[-1] if len(parts) == 1 or _names(parts[0]) else "") for parts in sides))


def _names(left: str) -> bool:
    return re.fullmatch(r"\s*(?:\\?[a-zA-Z]+|1?/?[a-zA-Z]\s*\([a-z]\))\s*", left) is not None


def _same_relation(gold: list[str], prediction: list[str]) -> bool:
    """Both sides of the same strictness, differences equal (equations: up to sign); named functions by their values."""
    kinds = {gold[1], prediction[1]}
    named = [_names(parts[0]) for parts in (gold, prediction)] if kinds == {"="} else [False]
    if any(named):
        return all(named) and _same(gold[2], prediction[2])
    if not (kinds == {"="} or kinds <= {"<", ">"} or kinds <= {"\\le", "\\ge"}):
        return False
    gaps = []
    for left, operator, right in (gold, prediction):
        first, second = _value(left), _value(right)
        if first is None or second is None:
            return False
        gaps.append(second - first if operator in (">", "\\ge") else first - second)
    return _equal_values(*gaps) or (kinds == {"="} and _equal_values(gaps[0], -gaps[1]))


def _equal_values(gold: Any, prediction: Any) -> bool:
    """Matrices entry by entry, expressions by algebra, else by agreement within tolerance at ten points."""
    import sympy

    if gold is None or prediction is None:
        return False
    matrices = [isinstance(value, sympy.MatrixBase) for value in (gold, prediction)]
    if any(matrices):
        alike = all(matrices) and (gold.shape == prediction.shape or (1 in gold.shape and 1 in prediction.shape))
        return alike and len(gold) == len(prediction) and all(map(_equal_values, gold, prediction))
    symbols = sorted(gold.free_symbols, key=str)
    if gold == prediction or not symbols or gold.free_symbols != prediction.free_symbols:
        return bool(_close(gold, prediction) or sympy.expand(gold - prediction, trig=True) == 0)
    gap = sympy.simplify(gold - prediction)
    if gap == 0 or (gap.is_number and abs(gap) <= 5 * TOLERANCE):
        return True
    points = [{symbol: 1 + (7 * i + 3 * k) % 10 for k, symbol in enumerate(symbols)} for i in range(10)]
    return all(_close(gold.subs(at), prediction.subs(at)) for at in points)


def _close(gold: Any, prediction: Any) -> bool:
    """Real and imaginary parts as floats within the tolerance that the size of the gold part sets."""
    if gold == prediction:
        return True
    try:
        pairs = [complex(value.evalf(15)) for value in (gold, prediction)]
    except (TypeError, ValueError, OverflowError):
        return False
    return _within(pairs[0].real, pairs[1].real) and _within(pairs[0].imag, pairs[1].imag)


def _within(gold: float, prediction: float) -> bool:
    limit = TOLERANCE if gold == 0 else 5 * TOLERANCE if abs(gold) >= 1 else TOLERANCE * abs(gold)
    return gold == prediction or abs(gold - prediction) <= limit

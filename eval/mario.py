"""The profile `mario`: the decisions of the published MARIO toolkit, for reproducing its figures only.

Four readings of both sides are tried and any match accepts, so every leniency adds up: tolerances on integers,
letters of a word as factors, units deleted, lists as sets without multiplicity. `default` does none of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from eval.verdict import Grade, different, equal

TOLERANCE = 1e-3
SNAP = 1e-7  # endpoints this close to an integer are that integer
_LONG_UNITS = (
    "centimeter|millimeter|kilometer|meter|square|inch|feet|foot|yard|mile|kilogram|gram|pound|ounce|liter|milliliter|second|minute|hour|"
    "day|week|month|year|dollar|cent|degree|unit"
)
_LONG = re.compile(rf"(?:{_LONG_UNITS})(?:es|s)?(?:\^\{{?\d\}}?)?", re.IGNORECASE)
_SHORT = re.compile(r"(?<=[\d}) ])\s+(?:cm|mm|km|kg|mg|ft|in|am|pm|lb|oz|mi|yd|m|g|l|L)(?:\^\{?\d\}?)?$")
_WORDS = {"million": "10^{6}", "billion": "10^{9}", "trillion": "10^{12}"}
_TEXT = re.compile(r"\\(?:text|mbox)\{([^{}]*)\}")


def grade_mario(gold: str, prediction: str) -> Grade:
    """Equal if any of the four passes says so; this profile knows no undecided."""
    if gold.strip() == prediction.strip():
        return equal("the same text")
    if prediction.strip() and any(_pass(gold, prediction, normal) for normal in _PASSES):
        return equal("equal under the mario profile")
    return different("different under the mario profile")


def _pass(gold: str, prediction: str, normal: Callable[[str], list[str]]) -> bool:
    return any(_same(a, b) for a in normal(gold) for b in normal(prediction))


# --- normalisation ---------------------------------------------------------------------------------------------


def _normal(text: str, spaces: bool, lower: bool) -> list[str]:
    """The readings of one text: several for percent, degrees, number bases and clock times."""
    from eval.text import clean

    text = clean(text).replace("$", "").replace("\\ ", " ")
    text = re.sub(r"\\text\{\s*(and|or)\s*\}|(?<= )(and|or)(?= )", ",", text).replace("\\$", "")
    text = re.sub(r"^\S+\s*\\in(?![a-zA-Z])", "", text)
    text = re.sub(r"^\\\{\s*\w\s*\|(.*)\\\}$", r"\1", text)
    if clock := _clock(text):
        return clock
    text = re.sub(r"\\begin\{cases\}|\\begin\{array\}(?:\{[^{}]*\})?", r"\\begin{matrix}", text)
    text = re.sub(r"\\end\{(?:cases|array)\}", r"\\end{matrix}", text)
    for word, factor in _WORDS.items():
        text = re.sub(rf"\\text\{{\s*{word}\s*\}}|{word}", f"*{factor}", text)
    text = _TEXT.sub("", _SHORT.sub("", _LONG.sub("", text)))
    if not spaces:
        text = re.sub(r"(?<=\d),\s*(?=\d{3}(?!\d))", "", re.sub(r"(\d) (?=\d+/\d)", r"\1+", text))
        text = re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", text)
    return [reading.lower() if lower else reading for reading in _marks(text)]


def _marks(text: str) -> list[str]:
    if match := re.fullmatch(r"\s*([0-9a-zA-Z]+)_\{?(\d+)\}?\s*", text):
        digits, base = match[1], int(match[2])
        value = [str(int(digits, base))] if 2 <= base <= 36 and all(int(d, 36) < base for d in digits) else []
        if digits[0].isdigit() or value:
            return [digits, *value, *([] if value else [_overflowing(digits, base)])]
    if match := re.fullmatch(r"\s*(-?[\d.]+)\s*\\?%\s*", text):
        return [f"{match[1]}/100", match[1]]
    if match := re.fullmatch(r"(.+?)\^\{?\s*\\circ\s*\}?\s*", text):
        return [match[1], rf"({match[1]})/180*\pi"]
    return [text]


def _overflowing(digits: str, base: int) -> str:
    """Positional value even where a digit is too large for the base, which the original does not check."""
    return str(sum(int(digit, 36) * base**place for place, digit in enumerate(reversed(digits))))


def _clock(text: str) -> list[str]:
    match = re.fullmatch(r"\s*(\d{1,2})(?::(\d{2}))?\s*(?:\\text\{)?\s*([ap])\.?m\.?\s*\}?", text.lower())
    if match is None:
        return []
    hour, minute = int(match[1]), match[2] or "0"
    return [f"[{hour},{int(minute)}]", f"[{hour + (12 if match[3] == 'p' and hour < 12 else 0)},{int(minute)}]"]


_PASSES: list[Callable[[str], list[str]]] = [
    lambda text: _normal(text, spaces=False, lower=True),
    lambda text: _normal(text, spaces=True, lower=True),
    lambda text: _normal(text, spaces=True, lower=False),
    lambda text: [re.sub(r"(?<=\d)\s*(?=\\frac)", " * ", text)],
]


# --- structure -------------------------------------------------------------------------------------------------


def _same(gold: str, prediction: str) -> bool:
    """Identical, else intervals, else split by brackets and commas, else the algebra."""
    from eval.answers import split_top

    if gold == prediction:
        return True
    if not prediction.strip():
        return False
    if _region(gold) is not None and _region(gold) == _region(prediction):
        return True
    first, second = _split(gold, split_top), _split(prediction, split_top)
    if first and second:
        brackets, left = first
        if brackets != second[0] or len(left) != len(second[1]):
            return False
        if brackets == "{}":
            return all(any(_same(a, b) for b in second[1]) for a in left)
        return all(map(_same, left, second[1]))
    return _algebra(gold, prediction)


def _split(text: str, split_top: Any) -> tuple[str, list[str]] | None:
    """Brackets and parts of a list; a bare list is a set of texts, so repetitions vanish."""
    text = text.strip()
    match = re.fullmatch(r"(\(|\[|\\\{)(.*)(\)|\]|\\\})", text, re.DOTALL)
    body, brackets = (match[2], match[1][-1] + match[3][-1]) if match else (text, "{}")
    parts = split_top(body, ",")[0]
    if len(parts) < 2 or any(not part for part in parts):
        return None
    return brackets, list(dict.fromkeys(parts)) if brackets == "{}" else parts


def _region(text: str) -> Any:
    """The sympy set of a union of intervals, endpoints as snapped floats; None for anything else."""
    import sympy

    pieces = []
    for part in re.split(r"\\cup|\\bigcup", text):
        match = re.fullmatch(r"\s*([(\[])([^,]+),([^,]+)([)\]])\s*", part)
        ends = [next(_values(end), None) for end in match.groups()[1:3]] if match else []
        if match is None or any(end is None or not getattr(end, "is_extended_real", False) for end in ends):
            return None
        numbers = [end if end.is_infinite else _snap(float(end)) for end in ends if end is not None]
        pieces.append(sympy.Interval(*numbers, match[1] == "(", match[4] == ")"))
    return sympy.Union(*pieces)


def _snap(value: float) -> Any:
    return round(value) if abs(value - round(value)) < SNAP else value


# --- algebra ---------------------------------------------------------------------------------------------------


def _values(text: str) -> Iterator[Any]:
    from eval.latex import FUNCTIONS, Unreadable, parse_expression

    text = re.sub(r"(?<=\d)\s*:\s*(?=\d)", "/", re.sub(r"(?<=\d)e([-+]?\d+)", r"*10^{\1}", text.strip()))
    known = {*FUNCTIONS, "pi", "oo"}
    text = re.sub(
        r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+|[a-zA-Z]{2,}",
        lambda m: m[0] if m[0][0] == "\\" or m[0] in known else " ".join(m[0]),
        text,
    )
    try:
        yield parse_expression(text)
    except Unreadable:
        return


def _algebra(gold: str, prediction: str) -> bool:
    """Relations by their kind, everything else by value."""
    sides = [re.split(r"(<|>|=|\\(?:le|ge|neq)(?![a-z]))", text) for text in (gold, prediction)]
    if all(len(parts) == 3 and parts[1] != "\\neq" for parts in sides):
        return _same_relation(*sides)
    if any(len(parts) > 1 and parts[1] != "=" for parts in sides):
        return False
    texts = [
        parts[2] if len(parts) == 3 and _names(parts[0]) else text
        for parts, text in zip(sides, (gold, prediction), strict=True)
    ]
    return any(_equal_values(a, b) for a in _values(texts[0]) for b in _values(texts[1]))


def _names(left: str) -> bool:
    return re.fullmatch(r"\s*(?:\\?[a-zA-Z]+|1?/?[a-zA-Z]\s*\([a-z]\))\s*", left) is not None


def _same_relation(gold: list[str], prediction: list[str]) -> bool:
    kinds = {gold[1], prediction[1]}
    if kinds == {"="}:
        named = [_names(parts[0]) for parts in (gold, prediction)]
        if all(named):
            return _same(gold[2], prediction[2])
        if any(named):
            return False
    elif not (kinds <= {"<", ">"} or kinds <= {"\\le", "\\ge"}):
        return False
    gaps = []
    for left, operator, right in (gold, prediction):
        first, second = next(_values(left), None), next(_values(right), None)
        if first is None or second is None:
            return False
        gaps.append(second - first if operator in (">", "\\ge") else first - second)
    return _equal_values(*gaps) or (kinds == {"="} and _equal_values(gaps[0], -gaps[1]))


def _equal_values(gold: Any, prediction: Any) -> bool:
    import sympy

    if isinstance(gold, sympy.MatrixBase) or isinstance(prediction, sympy.MatrixBase):
        if not (isinstance(gold, sympy.MatrixBase) and isinstance(prediction, sympy.MatrixBase)):
            return False
        same_shape = gold.shape == prediction.shape or (1 in gold.shape and 1 in prediction.shape)
        return same_shape and len(gold) == len(prediction) and all(map(_equal_values, gold, prediction))
    if gold == prediction:
        return True
    if not gold.free_symbols and not prediction.free_symbols:
        return _close(gold, prediction)
    if gold.free_symbols != prediction.free_symbols:
        return bool(sympy.expand(gold - prediction, trig=True) == 0)
    gap = sympy.simplify(gold - prediction)
    return bool(gap == 0 or (gap.is_number and abs(gap) <= 5 * TOLERANCE) or _sampled(gold, prediction))


def _sampled(gold: Any, prediction: Any) -> bool:
    """Agreement within tolerance at ten integer points, or at ten others."""
    symbols = sorted(gold.free_symbols, key=str)
    for scale in (1, 0.73):
        points = [{s: scale * (1 + (7 * i + 3 * k) % 10) for k, s in enumerate(symbols)} for i in range(10)]
        if all(_close(gold.subs(at), prediction.subs(at)) for at in points):
            return True
    return False


def _close(gold: Any, prediction: Any) -> bool:
    """Real and imaginary parts as floats within the tolerance that the size of the gold part sets."""
    if gold == prediction:
        return True
    try:
        first, second = complex(gold.evalf(15)), complex(prediction.evalf(15))
    except (TypeError, ValueError, OverflowError):
        return False
    return _within(first.real, second.real) and _within(first.imag, second.imag)


def _within(gold: float, prediction: float) -> bool:
    if gold == prediction:
        return True
    if gold == 0:
        return abs(prediction) <= TOLERANCE
    return abs(gold - prediction) <= (5 * TOLERANCE if abs(gold) >= 1 else TOLERANCE * abs(gold))

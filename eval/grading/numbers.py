"""Number literals read exactly, and the one rule that says when two numbers are the same answer.

Nothing here is a float: a literal is a fraction together with how many decimals it was written with, because
whether rounding is acceptable depends on which side was rounded and how far.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 4000  # longer literals are compared as text: a conversion would cost more than it tells
MAX_EXPONENT = 4000
FLOAT_DIGITS = 15  # a decimal written with this many significant digits is a printed double

_GROUPED = r"[1-9]\d{0,2}(?:(?:,| |\{,\}|,\\!|\\,|,\\,)\d{3})+(?!\d)"
_DECIMAL = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<whole>{_GROUPED}|\d*)(?:\.(?P<decimals>\d*))?"
    r"(?:[eE](?P<e>[-+]?\d+)|\s*(?:\\times|\\cdot|\*|×)\s*10\s*(?:\^|\*\*)\s*(?P<p>\{\s*[-+]?\d+\s*\}|[-+]?\d+))?"
)
_FRACTION = re.compile(
    r"(?P<sign>[-+]?)\s*(?:(?P<mixed>\d+)\s*(?=\\)|(?P<plain>\d+)\s+(?=\d))?"
    r"(?:\\[dt]?frac\s*(?:\{\s*(?P<n>[-+]?\d+)\s*\}\s*\{\s*(?P<d>[-+]?\d+)\s*\}|(?P<n1>\d)\s*(?P<d1>\d)(?!\d))"
    r"|(?P<n2>\d+)\s*/\s*(?P<d2>-?\d+))"
)


@dataclass(frozen=True)
class Number:
    """An exact value; `decimals` is the number of places it was written with (None: not a decimal literal)."""

    value: Fraction
    decimals: int | None = None
    digits: int = 0  # significant digits written

    @property
    def rounded(self) -> bool:
        """Whether the literal may stand for a number that was rounded: it has decimals that are not all zero."""
        return self.decimals is not None and self.value.denominator != 1


def read_number(text: str) -> Number | None:
    """The number that the whole of `text` spells: integer, decimal, scientific, grouped, fraction, mixed number."""
    text = text.strip()
    if len(text) > MAX_DIGITS:
        return None
    if match := _DECIMAL.fullmatch(text):
        return _decimal(match)
    if match := _FRACTION.fullmatch(text):
        return _fraction(match)
    return None


def _decimal(match: re.Match[str]) -> Number | None:
    whole, decimals = re.sub(r"\D", "", match["whole"]), match["decimals"]
    if not whole and not decimals:
        return None
    exponent = int((match["e"] or match["p"] or "0").strip("{} ")[:12])
    if abs(exponent) > MAX_EXPONENT:
        return None
    digits = whole + (decimals or "")
    places = len(decimals or "") - exponent
    value = Fraction(int(digits)) * Fraction(10) ** -places
    if match["sign"] == "-":
        value = -value
    return Number(value, places if decimals else None, len(digits.lstrip("0")))


def _fraction(match: re.Match[str]) -> Number | None:
    top = int(match["n"] or match["n1"] or match["n2"])
    bottom = int(match["d"] or match["d1"] or match["d2"])
    whole = match["mixed"] or match["plain"]
    if bottom == 0 or (whole and not 0 <= top < bottom):
        return None
    value = Fraction(top, bottom) + int(whole or 0)
    return Number(-value if match["sign"] == "-" else value)


def same_number(gold: Number, prediction: Number, exact: bool = False) -> str:
    """Why the two are the same answer, or "" when they are not. `exact` allows no rounding at all.

    The stated policy: a decimal gold is met by what rounds to it; an exact gold is met by a decimal that is the
    gold rounded to at least three places; two printed doubles may differ by a few units in the last place.
    """
    if gold.value == prediction.value:
        return "equal numbers"
    if exact:
        return ""
    gap = abs(gold.value - prediction.value)
    if gold.rounded and gap * 2 <= Fraction(10) ** -_places(gold):
        return "the prediction rounds to the gold"
    short = prediction.rounded and not gold.rounded
    if short and prediction.value != 0 and _places(prediction) >= 3 and gap * 2 <= Fraction(10) ** -_places(prediction):
        return f"the gold rounded to {prediction.decimals} decimals"
    doubles = max(_written(gold), _written(prediction)) >= FLOAT_DIGITS
    if doubles and gap <= abs(gold.value) * Fraction(4, 2**52):
        return "the same double"
    return ""


def _places(number: Number) -> int:
    return number.decimals or 0


def _written(number: Number) -> int:
    """Significant digits of a decimal literal; 0 for exact numbers, which are never taken for doubles."""
    return number.digits if number.decimals is not None else 0

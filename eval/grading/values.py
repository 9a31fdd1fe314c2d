"""Equality of values: exact by algebra or by evaluation (`identity`), and rounding as the policy allows."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import sympy
from sympy import Rational

from eval.grading.answers import Scalar
from eval.grading.identity import Decision, equal_values
from eval.grading.latex import Value
from eval.grading.numbers import Number, same_number

DIGITS, MAX_DIGITS = 30, 300


def _number(scalar: Scalar, value: Value) -> Number | None:
    """The value as a number for the rounding rule: its literal, or sixty digits of an exact real expression."""
    if scalar.number is not None and value == _rational(scalar.number.value):
        return scalar.number
    if value.is_Rational:
        places = None
        if scalar.number is not None and scalar.number.decimals is not None:
            shift = {Rational(1, 100): 2, Rational(1, 1): 0}.get(value / (_rational(scalar.number.value) or 1), 0)
            places = scalar.number.decimals + shift
        return Number(Fraction(int(value.p), int(value.q)), places, scalar.number.digits if scalar.number else 0)
    approximate = value.evalf(60, maxn=MAX_DIGITS) if value.is_number else None
    if approximate is None or not approximate.is_Float:
        return None
    return Number(Fraction(str(Rational(str(approximate)))))


def _rational(value: Fraction) -> Rational:
    return Rational(value.numerator, value.denominator)


def same_value(gold: Scalar, left: Value, prediction: Scalar, right: Value, exact: bool) -> Decision:
    """Equal values, or one the rounding of the other as the policy allows."""
    matrices = isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase)
    if matrices and not exact and all(1 in getattr(value, "shape", ()) for value in (left, right)):
        left, right = (value.reshape(1, len(value)) for value in (left, right))  # a row and a column
    decision = equal_values(left, right)
    if decision is True or matrices or exact or "." not in gold.text + prediction.text:
        return decision
    if left.is_number and right.is_number:
        if left.is_extended_real and right.is_extended_real:
            first, second = _number(gold, left), _number(prediction, right)
            if first is None or second is None or not (gold.number or prediction.number):
                return decision
            return True if same_number(first, second) else decision
        return True if _rounded_complex(gold, left, prediction, right) else decision
    return None if decision is False and _nearly(left, right) else decision


def _rounded_complex(gold: Scalar, left: Value, prediction: Scalar, right: Value) -> bool:
    """Real and imaginary parts under the rounding rule, with the fewest decimals that are written."""
    numbers = []
    for scalar, value in ((gold, left), (prediction, right)):
        decimals = [len(part) for part in _DECIMALS.findall(scalar.text)]
        parts = [_number(Scalar(part), part) for part in value.as_real_imag()]
        if any(part is None for part in parts):
            return False
        places = min(decimals) if decimals else None
        numbers.append([replace(part, decimals=places, digits=places or 0) for part in parts if part is not None])
    return all(same_number(first, second) for first, second in zip(*numbers, strict=True))


_DECIMALS = re.compile(r"\.(\d+)")


def _nearly(left: Value, right: Value) -> bool:
    """Whether two expressions in the same symbols differ by less than a thousandth: rounded coefficients."""
    symbols = sorted(left.free_symbols, key=str)
    if not symbols or left.free_symbols != right.free_symbols:
        return False
    for point in (0, 7, 14):
        at = {symbol: Rational(point + (i if point else 0), 3) for i, symbol in enumerate(symbols)}
        first, second = left.subs(at).evalf(DIGITS), right.subs(at).evalf(DIGITS)
        if not (first.is_number and second.is_number and abs(first - second) <= abs(first) / 1000):
            return False
    return True

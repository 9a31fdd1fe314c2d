"""Relations up to how they are written: inequalities, equations, and families in an integer parameter."""

from __future__ import annotations

import re

import sympy
from sympy import Symbol

from eval.grading.answers import Answer, Equation, Family, Inequality, Items, Named, Scalar
from eval.grading.identity import Decision, equal_values, every
from eval.grading.latex import Value

_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\neq": "\\neq"}


def same_inequality(gold: Inequality, prediction: Inequality) -> Decision:
    """Up to moving terms and scaling by a constant; None where only the solution sets can tell."""
    if gold.operators == prediction.operators and every(map(equal_values, gold.sides, prediction.sides)) is True:
        return True
    symbols = [symbols_of(one) for one in (gold, prediction)]
    if symbols[0] != symbols[1]:
        return False
    if len(gold.operators) != 1 or len(prediction.operators) != 1:
        return None
    left, right = (one.sides[0] - one.sides[1] for one in (gold, prediction))
    factor = constant_ratio(left, right)
    if factor is None:
        return None if len(symbols[0]) == 1 else False
    operator = prediction.operators[0]
    return gold.operators[0] == (operator if factor > 0 else _FLIPPED[operator])


def symbols_of(inequality: Inequality) -> set[Symbol]:
    return {symbol for side in inequality.sides for symbol in side.free_symbols}


def constant_ratio(left: Value, right: Value) -> Value | None:
    """left / right if that is one real number other than zero."""
    if left == 0 or right == 0:
        return None
    ratio = sympy.simplify(left / right)
    return ratio if ratio.is_number and ratio.is_real and ratio != 0 else None


def kind_of_name(named: Named) -> str:
    """f for a function of a variable, y for the letter that may stand for one; neither with primes or an inverse."""
    if re.fullmatch(r"[a-zA-Z]\([a-z]\)", named.name):
        return "f"
    return "y" if named.name == "y" else ""


def base_name(name: str) -> str:
    return name.partition("(")[0]


def same_equations(gold: Answer, prediction: Answer) -> Decision:
    """Equal up to moving terms, scaling by a constant and clearing denominators."""
    sides = []
    for answer in (gold, prediction):
        if isinstance(answer, Named):
            value = answer.value
            if not isinstance(value, Scalar) or value.unit or value.mark or "(" in answer.name:
                return False
            answer = Equation(Symbol(answer.name.lstrip("\\")), value.value)
        if not isinstance(answer, Equation):
            return False
        sides.append(answer)
    if any(isinstance(side, sympy.MatrixBase) for one in sides for side in (one.left, one.right)):
        return every([equal_values(sides[0].left, sides[1].left), equal_values(sides[0].right, sides[1].right)]) or None
    gaps = [sympy.together(one.left - one.right) for one in sides]
    if not any(gap.free_symbols for gap in gaps):  # constants: true or false whatever they say
        parts = [equal_values(sides[0].left, sides[1].left), equal_values(sides[0].right, sides[1].right)]
        return True if parts == [True, True] else False if parts[1] is False else None
    left, right = (gap.as_numer_denom()[0] for gap in gaps)
    if left.free_symbols != right.free_symbols:
        return False
    return constant_ratio(left, right) is not None or (left == 0 and right == 0)


def same_family(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    """Lists in an integer parameter: the same progressions under any name of the parameter."""
    if not (isinstance(gold, Family) and isinstance(prediction, Family)):
        bare = gold if isinstance(prediction, Family) else prediction
        return None if isinstance(bare, Scalar | Items | Named) and not _is_constant(bare) else False
    parameter = Symbol("_n", integer=True)
    left, right = (_progressions(family, parameter) for family in (gold, prediction))
    if left is None or right is None:
        return None
    if len(left) != len(right):
        return None
    unmatched = list(right)
    for offset, step in left:
        found = next((pair for pair in unmatched if _same_progression(offset, step, *pair)), None)
        if found is None:
            return None if len(left) > 1 else False
        unmatched.remove(found)
    return True


def _is_constant(answer: Answer) -> bool:
    return isinstance(answer, Scalar) and not answer.value.free_symbols


def _progressions(family: Family, parameter: Symbol) -> list[tuple[Value, Value]] | None:
    """(offset, step) of every part; None unless all are linear in the parameter."""
    pairs = []
    for part in family.parts:
        part = part.value if isinstance(part, Named) else part
        if not isinstance(part, Scalar) or isinstance(part.value, sympy.MatrixBase):
            return None
        value = part.value * (sympy.pi / 180 if part.mark == "deg" else 1)
        value = sympy.expand(value.subs(Symbol(family.parameter), parameter))
        step = value.coeff(parameter)
        if step == 0 or parameter in (value - step * parameter).free_symbols:
            return None
        pairs.append((sympy.simplify(value - step * parameter), step))
    return pairs


def _same_progression(offset: Value, step: Value, other_offset: Value, other_step: Value) -> bool:
    shift = sympy.simplify((offset - other_offset) / step)
    return bool(equal_values(abs(step), abs(other_step))) and bool(shift.is_integer)

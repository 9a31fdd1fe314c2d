"""What an answer can say: a value, a list, a relation, a set, a time or words; and the set of reals it describes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import sympy
from sympy import Symbol
from sympy.core.function import AppliedUndef

from eval.grading.latex import Value
from eval.grading.numbers import Number


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Unread:
    """Notation that was not understood; comparable only as text."""

    text: str


@dataclass(frozen=True)
class Scalar:
    """An expression or a matrix; `number` where it is one literal, `mark` one of "", "%", "deg", "base N".

    product: the value when a letter before a bracket, as in k(3), is read as a factor and not as a function.
    cells: the entries of a matrix as answers of their own, row by row.
    """

    value: Value
    number: Number | None = None
    unit: str = ""
    mark: str = ""
    text: str = ""
    product: Value | None = None
    cells: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Items:
    """Several answers; `brackets` as written: "" for a bare list, "()", "[)", "{}", "<>" and so on."""

    brackets: str
    parts: tuple[Answer, ...]
    text: str = ""  # of a bare list


@dataclass(frozen=True)
class Named:
    """`name = value`, `f(x) = value`, `name in value`."""

    name: str
    value: Answer


@dataclass(frozen=True)
class Equation:
    left: Value
    right: Value


@dataclass(frozen=True)
class Inequality:
    sides: tuple[Value, ...]
    operators: tuple[str, ...]  # <, >, \le, \ge, \neq; one fewer than sides


@dataclass(frozen=True)
class Region:
    """A combination of sets: `operator` is \\cup, \\cap or \\setminus; a lone number set has no parts."""

    operator: str
    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Ratio:
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Clock:
    hour: int
    seconds: int  # after the hour
    half: str  # "a", "p" or "" when not said


@dataclass(frozen=True)
class Family:
    """One answer for every integer value of a parameter."""

    parts: tuple[Answer, ...]
    parameter: str


Answer = Words | Unread | Scalar | Items | Named | Equation | Inequality | Region | Ratio | Clock | Family


def as_set(answer: Answer) -> sympy.Set | None:
    """The set of real numbers that an interval, an inequality, a union or a finite set describes."""
    if isinstance(answer, Named):
        return as_set(answer.value)
    if isinstance(answer, Scalar) and answer.value in (sympy.oo, -sympy.oo):
        return None
    if isinstance(answer, Items):
        return _items_set(answer)
    if isinstance(answer, Inequality):
        return _solution_set(answer)
    if not isinstance(answer, Region):
        return sympy.FiniteSet(answer.value) if isinstance(answer, Scalar) else None
    if not answer.parts:
        return sympy.S.Reals
    sets = [as_set(part) for part in answer.parts]
    if any(part is None for part in sets):
        return None
    if answer.operator == "\\setminus":
        return sympy.Complement(sets[0], sympy.Union(*sets[1:]))
    return reduce(sympy.Union if answer.operator == "\\cup" else sympy.Intersection, sets)


def _items_set(items: Items) -> sympy.Set | None:
    values = [part.value for part in items.parts if isinstance(part, Scalar)]
    if len(values) != len(items.parts):
        return None
    if items.brackets in ("{}", ""):
        return sympy.FiniteSet(*values)
    if len(values) != 2 or items.brackets == "<>":
        return None
    return sympy.Interval(*values, items.brackets[0] == "(", items.brackets[1] == ")")


def _solution_set(inequality: Inequality) -> sympy.Set | None:
    symbols = set().union(*(side.free_symbols for side in inequality.sides))
    if len(symbols) != 1:
        return None
    old, x = symbols.pop(), Symbol("x", real=True)
    applied = {call for side in inequality.sides for call in side.atoms(AppliedUndef)}  # 0 < f(x) < 1 bounds f(x)
    if len(applied) > 1:
        return None
    sides = [side.xreplace(dict.fromkeys(applied, x)) if applied else side.subs(old, x) for side in inequality.sides]
    relations = {"<": sympy.Lt, ">": sympy.Gt, "\\le": sympy.Le, "\\ge": sympy.Ge, "\\neq": sympy.Ne}
    result = sympy.S.Reals
    for left, operator, right in zip(sides, inequality.operators, sides[1:], strict=False):
        if operator == "\\neq":
            part = sympy.Complement(sympy.S.Reals, sympy.solveset(left - right, x, sympy.S.Reals))
        else:
            part = sympy.solve_univariate_inequality(relations[operator](left, right), x, relational=False)
        result = sympy.Intersection(result, part)
    return result

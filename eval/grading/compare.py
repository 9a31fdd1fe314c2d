"""The decision whether two answers that were read say the same: True, False, or None for undecided.

One rule for each kind of answer; the first kind in `_RULES` that either side has decides which rule applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sympy
from sympy import Rational, Symbol

from eval.grading.answers import (
    Answer,
    Clock,
    Equation,
    Family,
    Inequality,
    Items,
    Named,
    Ratio,
    Region,
    Scalar,
    Unread,
    Words,
    as_set,
    balanced,
    read,
)
from eval.grading.identity import Decision
from eval.grading.latex import Unreadable, Value, matrix_of
from eval.grading.text import SYMBOL_UNITS
from eval.grading.values import equal_values, every, same_value

MAX_PARTS = 60


def same(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    """Whether the prediction is the gold answer. `exact` (policy `strict`) allows nothing beyond equal values."""
    for kind, rule in _RULES:
        if isinstance(gold, kind) or isinstance(prediction, kind):
            return rule(gold, prediction, exact)
    return same_scalar(gold, prediction, exact)  # type: ignore[arg-type]


# --- single answers --------------------------------------------------------------------------------------------


def same_scalar(gold: Scalar, prediction: Scalar, exact: bool) -> Decision:
    gold, prediction = _letter_units(gold, prediction)
    if gold.unit != prediction.unit and (exact or (gold.unit and prediction.unit)):
        return False
    if _labelled_apart(gold, prediction):
        return False
    if gold.text.isalpha() and prediction.text.isalpha() and len(gold.text) + len(prediction.text) > 2:
        return _short_words(gold.text.casefold(), prediction.text.casefold())
    if _choice(gold) and _choice(prediction):
        return _choice(gold) == _choice(prediction)
    if "base" in gold.mark and not prediction.mark and not exact:
        return prediction.text.lower().lstrip("0") == gold.text.lstrip("0")
    decisions = [same_value(gold, left, prediction, right, exact) for left, right in _readings(gold, prediction, exact)]
    return True if True in decisions else None if None in decisions else False


def _labelled_apart(gold: Scalar, prediction: Scalar) -> bool:
    """Per cent against degrees, or either against a unit."""
    labels = [scalar.mark or scalar.unit for scalar in (gold, prediction)]
    return all(labels) and labels[0] != labels[1] and bool({"%", "deg"} & set(labels))


def _readings(gold: Scalar, prediction: Scalar, exact: bool) -> list[tuple[Value, Value]]:
    """Pairs of values to compare: what a percent sign or a degree sign may stand for beside a number without it."""
    left, right = gold.value, prediction.value
    marks = (gold.mark, prediction.mark)
    if marks == ("%", "%"):
        return [(left * 100, right * 100)]
    if marks == ("deg", "deg"):
        return [(left, right)]
    radians = sympy.pi / 180
    if exact:
        return [(left * radians if marks[0] == "deg" else left, right * radians if marks[1] == "deg" else right)]
    if marks[0] in ("%", "deg"):
        return [(left, right), (left * (100 if marks[0] == "%" else radians), right)]
    if marks[1] == "%":
        bare = right * 100
        return [(left, right)] + ([(left, bare)] if bare.is_number and bare.is_real and abs(bare) > 1 else [])
    return [(left, right), (left, right * radians)] if marks[1] == "deg" else [(left, right)]


def _letter_units(gold: Scalar, prediction: Scalar) -> tuple[Scalar, Scalar]:
    """`5 m` beside an expression in m is a product, not five metres."""
    for this, other in ((gold, prediction), (prediction, gold)):
        symbols: set[Symbol] = getattr(other.value, "free_symbols", set())
        if this.unit in SYMBOL_UNITS and this.unit and Symbol(this.unit) in symbols:
            product = replace(this, value=this.value * Symbol(this.unit), number=None, unit="")
            return (product, other) if this is gold else (other, product)
    return gold, prediction


def _choice(scalar: Scalar) -> str:
    return str(scalar.value).casefold() if isinstance(scalar.value, Symbol) and len(str(scalar.value)) == 1 else ""


def _short_words(gold: str, prediction: str) -> Decision:
    """Two or three letters are a word or a product; only a rearrangement leaves that open."""
    return gold == prediction or (None if sorted(gold) == sorted(prediction) and set(gold) - set("ivx") else False)


def _words(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    if isinstance(gold, Named) or isinstance(prediction, Named):
        return _named(gold, prediction, exact)
    gold, prediction = (
        Words(one.text.casefold()) if isinstance(one, Scalar) and one.text.isalpha() else one
        for one in (gold, prediction)
    )
    return isinstance(gold, Words) and isinstance(prediction, Words) and gold.text == prediction.text


def _unread(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    """Notation that was not understood: the same text, a malformed prediction, or no decision."""
    if isinstance(gold, Unread) and isinstance(prediction, Unread) and gold.text == prediction.text:
        return True
    malformed = not exact and isinstance(prediction, Unread) and not (prediction.text and balanced(prediction.text))
    return False if malformed or isinstance(gold, Words) or isinstance(prediction, Words) else None


def _clock(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    if isinstance(gold, Clock) and isinstance(prediction, Clock):
        if _time(gold, prediction.half) == _time(prediction, gold.half):
            return True
        ratio = not gold.half and not prediction.half and gold.seconds and prediction.seconds
        return None if ratio and gold.hour * prediction.seconds == prediction.hour * gold.seconds else False
    return every(
        [_ratio_of(gold) is not None and _ratio_of(prediction) is not None and _ratio(gold, prediction, exact)]
    )


def _time(clock: Clock, other_half: str) -> int:
    """Seconds after midnight; a missing half is the other side's when the hour leaves it open."""
    half = clock.half or (other_half if clock.hour <= 12 else "")
    hour = clock.hour % 12 + (12 if half == "p" else 0) if half else clock.hour
    return hour * 3600 + clock.seconds


def _ratio_of(answer: Answer) -> tuple[Value, ...] | None:
    if isinstance(answer, Clock):
        return (
            None if answer.half or answer.seconds % 60 else (sympy.Integer(answer.hour), Rational(answer.seconds, 60))
        )
    if isinstance(answer, Scalar) and not answer.mark and not isinstance(answer.value, sympy.MatrixBase):
        return (answer.value, sympy.Integer(1))
    return answer.parts if isinstance(answer, Ratio) else None


def _ratio(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    left, right = _ratio_of(gold), _ratio_of(prediction)
    if left is None or right is None or len(left) != len(right) or 0 in (left[0], right[0]):
        return False
    return every(equal_values(a * right[0], b * left[0]) for a, b in zip(left, right, strict=True))


# --- lists, vectors, sets --------------------------------------------------------------------------------------


def _items(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    if isinstance(gold, Items) and isinstance(prediction, Items):
        left, right = _vector(gold), _vector(prediction)
        if left is not None and right is not None:
            return equal_values(left, right)
        return _same_items(gold, prediction, exact)
    items, other = (gold, prediction) if isinstance(gold, Items) else (prediction, gold)
    assert isinstance(items, Items)
    if isinstance(other, Region | Inequality):
        return _region(gold, prediction, exact)
    if isinstance(other, Scalar) and "," in other.text and not items.brackets and not other.unit:
        listed = Items("", tuple(map(read, other.text.split(","))))  # 45,135 beside two angles is no grouped number
        return _items(items, listed, exact) if items is gold else _items(listed, items, exact)
    if isinstance(other, Scalar) and isinstance(other.value, sympy.MatrixBase) and items.brackets not in ("{}",):
        return _matrix_and_items(other, items, gold is other, exact)
    return False


def _vector(items: Items) -> Value | None:
    """A list of equally long lists as the matrix it prints."""
    rows = [part.parts for part in items.parts if isinstance(part, Items) and part.brackets in ("[]", "()")]
    if items.brackets != "[]" or len(rows) != len(items.parts) or not rows:
        return None
    try:
        return matrix_of([[part.value for part in row if isinstance(part, Scalar)] for row in rows])
    except Unreadable:
        return None


def _matrix_and_items(matrix: Scalar, items: Items, matrix_is_gold: bool, exact: bool) -> Decision:
    nested = _vector(items)
    if nested is not None:
        return equal_values(matrix.value, nested)
    if 1 not in matrix.value.shape or items.brackets in ("[)", "(]"):
        return False
    vector = Items(items.brackets, tuple(Scalar(entry) for entry in matrix.value))
    return _in_order(vector, items, exact) if matrix_is_gold else _in_order(items, vector, exact)


def _same_items(gold: Items, prediction: Items, exact: bool) -> Decision:
    if len(gold.parts) > MAX_PARTS or len(prediction.parts) > MAX_PARTS:
        return None
    brackets = {gold.brackets, prediction.brackets}
    named = [all(isinstance(part, Named) for part in side.parts) for side in (gold, prediction)]
    if not brackets - {"", "{}"} and named[0] == named[1]:
        if gold.brackets == prediction.brackets == "{}":
            return every([_covers(gold, prediction, exact), _covers(prediction, gold, exact)])
        return _in_any_order(gold, prediction, exact)
    if len(brackets) == 1 or (named[0] != named[1] and not brackets - {"", "()", "{}"}):
        return _in_order(gold, prediction, exact)
    if exact:
        return False
    if brackets == {"", "[]"} or (brackets == {"[]", "{}"} and len(gold.parts) > 2):
        return _in_any_order(gold, prediction, exact)
    vectors = brackets <= {"()", "[]", "<>"} and (len(gold.parts) > 2 or "<>" in brackets)
    return _in_order(gold, prediction, exact) if vectors or brackets == {"", "()"} else False


def _in_order(gold: Items, prediction: Items, exact: bool) -> Decision:
    if len(gold.parts) != len(prediction.parts):
        return False
    return every(same(a, b, exact) for a, b in zip(gold.parts, prediction.parts, strict=True))


def _in_any_order(gold: Items, prediction: Items, exact: bool) -> Decision:
    """A one-to-one pairing of equal parts; undecided if only a pairing with undecided parts exists."""
    if len(gold.parts) != len(prediction.parts):
        return False
    table = [[same(part, other, exact) for other in prediction.parts] for part in gold.parts]
    if _pairing([[decision is True for decision in row] for row in table]):
        return True
    return None if _pairing([[decision is not False for decision in row] for row in table]) else False


def _pairing(allowed: list[list[bool]]) -> bool:
    """Whether every row can have a column of its own (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, free in enumerate(allowed[row]):
            if free and column not in tried:
                tried.add(column)
                if column not in owner or place(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(allowed)))


def _covers(gold: Items, prediction: Items, exact: bool) -> Decision:
    """Whether every gold part has an equal among the prediction's: for sets, where repetition does not count."""
    decisions = []
    for part in gold.parts:
        found = [same(part, other, exact) for other in prediction.parts]
        decisions.append(True if True in found else None if None in found else False)
    return every(decisions)


def _region(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    """Sets of real numbers, whatever notation describes them."""
    if isinstance(gold, Inequality) and isinstance(prediction, Inequality):
        decision = _same_inequality(gold, prediction)
        if decision is not None:
            return decision
    if isinstance(gold, Scalar | Ratio | Clock) or isinstance(prediction, Scalar | Ratio | Clock):
        return False
    try:
        left, right = as_set(gold), as_set(prediction)
        if left is None or right is None:
            return None if left is None and right is None else False
        if left == right:
            return True
        first, second = _pieces(left), _pieces(right)
        if first is None or second is None:
            return None
        return len(first) == len(second) and every(
            a.brackets == b.brackets and _in_order(a, b, exact) for a, b in zip(first, second, strict=True)
        )
    except (NotImplementedError, TypeError, ValueError):
        return None


def _pieces(region: sympy.Set) -> list[Items] | None:
    """The intervals and points of a union from left to right; None for anything else."""
    pieces: list[tuple[float, Items]] = []
    for part in region.args if isinstance(region, sympy.Union) else [region]:
        if isinstance(part, sympy.FiniteSet):
            pieces += [(float(point), Items("[]", (Scalar(point), Scalar(point)))) for point in part]
        elif isinstance(part, sympy.Interval):
            brackets = ("(" if part.left_open else "[") + (")" if part.right_open else "]")
            ends = tuple(Scalar(end, text="." if end.is_Rational else "") for end in (part.start, part.end))
            pieces.append((float(part.start), Items(brackets, ends)))
        elif part is not sympy.S.EmptySet:
            return None
    return [piece for _, piece in sorted(pieces, key=lambda pair: pair[0])]


_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\neq": "\\neq"}


def _same_inequality(gold: Inequality, prediction: Inequality) -> Decision:
    """Up to moving terms and scaling by a constant; None where only the solution sets can tell."""
    if gold.operators == prediction.operators and every(map(equal_values, gold.sides, prediction.sides)) is True:
        return True
    symbols = [_symbols(one) for one in (gold, prediction)]
    if symbols[0] != symbols[1]:
        return False
    if len(gold.operators) != 1 or len(prediction.operators) != 1:
        return None
    left, right = (one.sides[0] - one.sides[1] for one in (gold, prediction))
    factor = _constant_ratio(left, right)
    if factor is None:
        return None if len(symbols[0]) == 1 else False
    operator = prediction.operators[0]
    return gold.operators[0] == (operator if factor > 0 else _FLIPPED[operator])


def _symbols(inequality: Inequality) -> set[Symbol]:
    return {symbol for side in inequality.sides for symbol in side.free_symbols}


def _constant_ratio(left: Value, right: Value) -> Value | None:
    """left / right if that is one real number other than zero."""
    if left == 0 or right == 0:
        return None
    ratio = sympy.simplify(left / right)
    return ratio if ratio.is_number and ratio.is_real and ratio != 0 else None


# --- equations, names, families --------------------------------------------------------------------------------


def _named(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    if isinstance(gold, Named) and isinstance(prediction, Named):
        if gold.name == prediction.name or {_kind(gold), _kind(prediction)} == {"y", "f"}:
            return same(gold.value, prediction.value, exact) or _as_equations(gold, prediction)
        if _kind(gold) == _kind(prediction) == "f" and gold.name[0] == prediction.name[0]:
            return same(gold.value, _renamed(prediction, gold), exact)
        return _as_equations(gold, prediction)
    name, other = (gold, prediction) if isinstance(gold, Named) else (prediction, gold)
    assert isinstance(name, Named)
    if isinstance(other, Equation):
        return _as_equations(gold, prediction)
    if isinstance(other, Inequality) and Symbol(name.name) not in _symbols(other):
        return False
    if exact:
        return False
    return same(name.value, other, exact) if name is gold else same(other, name.value, exact)


def _kind(named: Named) -> str:
    return "f" if "(" in named.name else "y" if named.name == "y" else ""


def _renamed(function: Named, like: Named) -> Answer:
    """f(t) = ... written in the variable of f(x)."""
    if not isinstance(function.value, Scalar):
        return function.value
    old, new = (Symbol(one.name.partition("(")[2].rstrip(")")) for one in (function, like))
    return replace(function.value, value=function.value.value.subs(old, new))


def _as_equations(gold: Answer, prediction: Answer) -> Decision:
    """Equal up to moving terms, scaling by a constant and clearing denominators."""
    sides = []
    for answer in (gold, prediction):
        if isinstance(answer, Named) and isinstance(answer.value, Scalar) and "(" not in answer.name:
            answer = Equation(Symbol(answer.name.lstrip("\\")), answer.value.value)
        if not isinstance(answer, Equation) or isinstance(answer.left - answer.left, sympy.MatrixBase):
            return False
        sides.append(sympy.together(answer.left - answer.right))
    left, right = (side.as_numer_denom()[0] for side in sides)
    if left.free_symbols != right.free_symbols:
        return False
    return _constant_ratio(left, right) is not None or (left == 0 and right == 0)


def _equation(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    return _as_equations(gold, prediction) if isinstance(gold, Equation | Named) else False


def _family(gold: Answer, prediction: Answer, exact: bool) -> Decision:
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


_RULES: list[tuple[Any, Callable[[Any, Any, bool], Decision]]] = [
    (Unread, _unread),
    (Words, _words),
    (Family, _family),
    (Named, _named),
    (Equation, _equation),
    (Clock, _clock),
    (Ratio, _ratio),
    (Items, _items),
    (Region | Inequality, _region),
]

"""The decision whether two answers that were read say the same: True, False, or None for undecided.

One rule for each kind of answer; the first kind in `_RULES` that either side has decides which rule applies.
"""

from __future__ import annotations

import re
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
)
from eval.grading.identity import Decision, equal_values, every
from eval.grading.latex import Unreadable, Value, matrix_of
from eval.grading.reading import read
from eval.grading.relations import (
    base_name,
    kind_of_name,
    same_equations,
    same_family,
    same_inequality,
    symbols_of,
)
from eval.grading.splitting import balanced
from eval.grading.units import SYMBOL_UNITS
from eval.grading.values import same_value

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
    prediction = _one_constant(gold, prediction)
    if gold.cells and prediction.cells and gold.value.shape == prediction.value.shape:
        return every(same(one, other, exact) for one, other in zip(gold.cells, prediction.cells, strict=True))
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
    decision = _any_reading(gold, prediction, exact)
    if gold.product is None and prediction.product is None:
        return decision
    factors = [one if one.product is None else replace(one, value=one.product) for one in (gold, prediction)]
    return decision if _any_reading(factors[0], factors[1], exact) is decision else None


def _any_reading(gold: Scalar, prediction: Scalar, exact: bool) -> Decision:
    decisions = [same_value(gold, left, prediction, right, exact) for left, right in _readings(gold, prediction, exact)]
    return True if True in decisions else None if None in decisions else False


_CONSTANTS = {Symbol("C"), Symbol("c"), Symbol("K"), Symbol("k")}  # of integration


def _one_constant(gold: Scalar, prediction: Scalar) -> Scalar:
    """The prediction with the gold's letter for the constant of integration: + c beside + C."""
    mine, other = (set(getattr(one.value, "free_symbols", ())) for one in (gold, prediction))
    new, old = mine - other, other - mine
    if len(new) == len(old) == 1 and new | old <= _CONSTANTS:
        (here,), (there,) = new, old
        if all(one.value.is_Add and letter in one.value.args for one, letter in ((gold, here), (prediction, there))):
            return replace(prediction, value=prediction.value.subs(there, here))
    return prediction


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
    if isinstance(other, Scalar) and not exact and _decimal_comma(items) and other.number is not None:
        comma = read(items.text.replace(",", "."))  # 2,5 beside 2.5
        return isinstance(comma, Scalar) and same_scalar(*((comma, other) if items is gold else (other, comma)), True)
    if isinstance(other, Scalar) and "," in other.text and not items.brackets and not other.unit:
        listed = Items("", tuple(map(read, other.text.split(","))))  # 45,135 beside two angles is no grouped number
        return _items(items, listed, exact) if items is gold else _items(listed, items, exact)
    if isinstance(other, Scalar) and isinstance(other.value, sympy.MatrixBase) and items.brackets not in ("{}",):
        return _matrix_and_items(other, items, gold is other, exact)
    return False


def _decimal_comma(items: Items) -> bool:
    return not items.brackets and re.fullmatch(r"-?\d+,\d+", items.text) is not None


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
    if named[0] != named[1] and not brackets - {"", "()", "{}", "<>"}:
        return _in_order_of_names(gold, prediction, named[0], exact)
    if not brackets - {"", "{}"}:
        if gold.brackets == prediction.brackets == "{}":
            return every([_covers(gold, prediction, exact), _covers(prediction, gold, exact)])
        return _in_any_order(gold, prediction, exact)
    if len(brackets) == 1:
        return _in_order(gold, prediction, exact)
    if exact:
        return False
    if brackets == {"", "[]"} and len(gold.parts) == 2:
        return _in_order(gold, prediction, exact)  # may be an interval
    if brackets == {"", "[]"} or (brackets == {"[]", "{}"} and len(gold.parts) > 2):
        return _in_any_order(gold, prediction, exact)
    vectors = brackets <= {"()", "[]", "<>"} and (len(gold.parts) > 2 or "<>" in brackets)
    return _in_order(gold, prediction, exact) if vectors or brackets == {"", "()"} else False


def _in_order_of_names(gold: Items, prediction: Items, gold_is_named: bool, exact: bool) -> Decision:
    """Named values beside a tuple: in the order of their names. The order as written only tells with odd names."""
    named = gold if gold_is_named else prediction
    names = [part.name for part in named.parts if isinstance(part, Named)]
    if len(set(names)) < len(names):
        return False if len(set(names)) > 1 else _in_any_order(gold, prediction, exact)
    decisions = []
    for parts in (sorted(named.parts, key=lambda part: part.name), named.parts):  # type: ignore[union-attr]
        values = Items("()", tuple(part.value for part in parts if isinstance(part, Named)))
        pair = (values, prediction) if gold_is_named else (gold, values)
        decisions.append(_in_order(*pair, exact))
    other = prediction if gold_is_named else gold
    if decisions[1] and not other.brackets and not exact:
        return True
    usual = re.fullmatch(r"(?:[a-z]|[a-zA-Z]_\w)+", "".join(names)) is not None
    if decisions[0] is not False or usual or decisions[1] is False:
        return decisions[0]
    return None  # in the order as written, with names that have no usual order


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
        decision = same_inequality(gold, prediction)
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


# --- equations, names ------------------------------------------------------------------------------------------


def _named(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    expanded = _each_named(gold), _each_named(prediction)
    if expanded != (gold, prediction):
        return same(*expanded, exact)
    if isinstance(gold, Named) and isinstance(prediction, Named):
        if gold.name == prediction.name or {kind_of_name(gold), kind_of_name(prediction)} == {"y", "f"}:
            return same(gold.value, prediction.value, exact)
        if kind_of_name(gold) == kind_of_name(prediction) == "f" and base_name(gold.name) == base_name(prediction.name):
            return every([same(*_in_one_variable(gold, prediction), exact)])
        return same_equations(gold, prediction)
    name, other = (gold, prediction) if isinstance(gold, Named) else (prediction, gold)
    assert isinstance(name, Named)
    if isinstance(other, Equation):
        return same_equations(gold, prediction)
    if isinstance(other, Inequality) and Symbol(name.name) not in symbols_of(other):
        return False
    if isinstance(other, Items) and all(isinstance(part, Named) for part in other.parts):
        names = {part.name.partition("_")[0] for part in other.parts if isinstance(part, Named)}
        if names != {name.name} or not isinstance(name.value, Items):  # x_1, x_2 are the values of x
            return False
        other = Items("", tuple(part.value for part in other.parts if isinstance(part, Named)))
    decision = same(name.value, other, exact) if name is gold else same(other, name.value, exact)
    return None if exact and decision else decision


def _each_named(answer: Answer) -> Answer:
    """(x, y) = (1, 2) as x = 1, y = 2."""
    if not isinstance(answer, Named) or not isinstance(answer.value, Items) or not answer.name.startswith("("):
        return answer
    names = answer.name.strip("()").split(",")
    if len(names) != len(answer.value.parts) or any(isinstance(part, Items) for part in answer.value.parts):
        return answer
    return Items("", tuple(map(Named, names, answer.value.parts)))


def _in_one_variable(gold: Named, prediction: Named) -> tuple[Answer, Answer]:
    """f(x) = ... and f(t) = ... written in one variable that occurs in neither."""
    answers = []
    for function in (gold, prediction):
        value, variable = function.value, Symbol(function.name.partition("(")[2].rstrip(")"))
        if isinstance(value, Scalar):
            value = replace(value, value=value.value.subs(variable, Symbol("_variable")), product=None)
        answers.append(value)
    return answers[0], answers[1]


def _equation(gold: Answer, prediction: Answer, exact: bool) -> Decision:
    if isinstance(gold, Equation | Named) and isinstance(prediction, Equation | Named):
        return same_equations(gold, prediction)
    equation, other = (gold, prediction) if isinstance(gold, Equation) else (prediction, gold)
    assert isinstance(equation, Equation)
    if not isinstance(other, Scalar) or isinstance(other.value, sympy.MatrixBase):
        return False
    names = {str(symbol) for symbol in sympy.Tuple(equation.left).free_symbols}
    quantity = bool(names) and all(name[0].isupper() for name in names)
    decision = same(Scalar(equation.right, text=other.text), replace(other, unit="", mark=""), True)
    if decision is not False and quantity and not exact:
        return decision
    return None if decision is not False and (exact or equation is prediction) else False


_RULES: list[tuple[Any, Callable[[Any, Any, bool], Decision]]] = [
    (Unread, _unread),
    (Words, _words),
    (Family, same_family),
    (Named, _named),
    (Equation, _equation),
    (Clock, _clock),
    (Ratio, _ratio),
    (Items, _items),
    (Region | Inequality, _region),
]

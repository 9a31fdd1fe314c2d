"""One property for each kind of pair that a lenient grader gets wrong, in both directions and under both policies.

`never` and `always` grade a pair both ways round; `strict` never accepts what is refused here.
"""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.grading.grader import Verdict, grade

SHARED = Path(__file__).parents[3] / "shared"
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

small = st.integers(2, 60)
letter = st.sampled_from("abcdpqrstuvwxyz")
capital = st.sampled_from("ABDEFGHKLMNPRST")


def never(first, second):
    for policy in ("default", "strict"):
        assert grade(first, second, policy).verdict is not Verdict.EQUAL, (first, second, policy)
        assert grade(second, first, policy).verdict is not Verdict.EQUAL, (second, first, policy)


def always(first, second):
    for gold, prediction in ((first, second), (second, first)):
        assert grade(gold, prediction).verdict is Verdict.EQUAL, (gold, prediction)
        assert grade(gold, prediction, "strict").verdict is not Verdict.DIFFERENT, (gold, prediction)


# --- text around an answer -------------------------------------------------------------------------------------

AROUND = [
    "{0}. So the pool is {0} m long",
    "{0}\n\nEvery lane is as long as the next.",
    "**{0}**",
    "{0}\n\n{0}",
    "The sum is {0}",
    "so we get {0}.",
    "The answer is {0}.",
    "Final answer: {0}",
    "There are {0} birds left.",
    "x = {0}",
    "length = {0} m",
    "The pool is **{0}** metres long.",
    r"Thus $x = {0}$.",
    r"It follows that the answer is $\boxed{{{0}}}$, as claimed.",
    "{0}, because nobody left",
    "Answer\n{0}",
]
HEDGED = [
    "{0} or {1}",
    "either {0} or {1}",
    "{0}, or perhaps {1}",
    "The answer is {0} or {1}.",
    r"\boxed{{{0}}} and \boxed{{{1}}}",
    r"First \boxed{{{0}}}. Then again \boxed{{{1}}}.",
    "The answer is {0}. Wait, it is {1}.",
    "The answer is {0}. The answer is {1}.",
    "{0} or more",
    "at least {0}",
    "more than {0}",
    "between {0} and {1}",
    "not {0}",
    "The answer is not {0}.",
    "{0} is wrong",
    "{0}, {1}",
    "It may be {0}",
]


@few
@given(st.integers(20, 999), st.sampled_from(AROUND))
def test_text_around_the_answer_keeps_it(number, around):
    assert grade(str(number), around.format(number)).verdict is Verdict.EQUAL
    assert grade(str(number), around.format(number), "strict").verdict is not Verdict.DIFFERENT
    assert grade(str(number + 1), around.format(number)).verdict is not Verdict.EQUAL


@few
@given(st.integers(20, 999), st.integers(1, 50), st.sampled_from(HEDGED))
def test_hedging_earns_nothing(number, step, hedged):
    for gold in (number, number + step):
        for policy in ("default", "strict"):
            assert grade(str(gold), hedged.format(number, number + step), policy).verdict is not Verdict.EQUAL


@few
@given(st.sampled_from("ABCDE"), st.sampled_from("ABCDE"))
def test_choices(one, other):
    for text in (f"({one})", f"{one}.", f"Option {one}", f"choice ({one})", f"The correct option is {one}"):
        assert (grade(one, text).verdict is Verdict.EQUAL) is True
        assert (grade(other, text).verdict is Verdict.EQUAL) is (one == other)
    if one != other:
        for text in ("({}) or ({})", "{} and {}", "{}. is false, {} is true", "{}: {}"):
            never(one, text.format(one, other))


# --- functions that are not analytic ---------------------------------------------------------------------------


@few
@given(st.integers(-(10**6), 10**6), letter)
def test_an_absolute_value_is_none_of_its_branches(shift, x):
    inside = f"{x}{shift:+d}"
    never(f"|{inside}|", inside)
    never(f"|{inside}|", f"-({inside})")
    never(rf"\sqrt{{({inside})^2}}", inside)
    never(rf"\max({x}, {shift})", x)
    always(f"|{inside}|", rf"\sqrt{{({inside})^2}}")


@few
@given(small, small, st.integers(0, 9))
def test_steps_of_different_width_differ(first, second, shift):
    for left, right in ((r"\lfloor", r"\rfloor"), (r"\lceil", r"\rceil")):
        one, two = (rf"{left}\frac{{n+{shift}}}{{{width}}}{right}" for width in (first, second))
        assert (grade(one, two).verdict is Verdict.EQUAL) is (first == second)
    always(rf"\lceil \frac{{x}}{{{first}}}\rceil", rf"-\lfloor -\frac{{x}}{{{first}}}\rfloor")


@few
@given(st.integers(400, 3000), st.integers(1, 5))
def test_tiny_numbers_are_told_apart(exponent, step):
    never(f"e^{{-{exponent}}}", f"e^{{-{exponent + step}}}")
    never(rf"10^{{-{exponent}}}\sqrt{{2}}", rf"10^{{-{exponent}}}\sqrt{{{2 + step}}}")
    always(rf"10^{{-{exponent}}}\sqrt{{8}}", rf"2\cdot 10^{{-{exponent}}}\sqrt{{2}}")


@few
@given(st.integers(10**5, 10**9), st.sampled_from([2, 3, 5, 7]))
def test_powers_too_large_to_write_are_compared_by_their_factors(exponent, base):
    always(f"{base}^{{{2 * exponent}}}", f"{base**2}^{{{exponent}}}")
    always(rf"{base}^{{{exponent}}} \cdot {base}", f"{base}^{{{exponent + 1}}}")
    never(f"{base}^{{{exponent}}}", f"{base}^{{{exponent + 1}}}")


# --- names, units, relations -----------------------------------------------------------------------------------


@few
@given(capital, st.integers(0, 1), small)
def test_a_letter_before_brackets_is_a_function(name, at, number):
    never(f"{name}({at})", name)
    never(f"{name}({at})+{number}", f"{name}+{number}")
    never(f"{name}({at})e^{{-{number}t}}", f"{name}({at})e^{{-{number + 1}t}}")
    always(f"{name}({at})+{number}", f"{number}+{name}({at})")


@few
@given(small, small, st.sampled_from([" ", r" \quad ", r" \\ ", "\n", r"\qquad "]))
def test_two_equations_are_two(first, second, between):
    text = f"x={first}{between}y={second}"
    always(text, f"y={second}, x={first}")
    never(text, f"x={first + 1}{between}y={second}")
    never(text, f"x={second + first}")
    never(text, str(second))


@few
@given(small, st.permutations(["f(x)", "f'(x)", "f^{-1}(x)", r"\sin(x)", r"\ln(x)", "E(X)", "E(Y)"]))
def test_names_with_brackets_are_compared_whole(number, names):
    for one, other in pairwise(names):
        never(f"{one}={number}x", f"{other}={number}x")
    never(f"y={number}", f"{names[0] if 'sin' in names[0] else chr(92) + 'sin(x)'}={number}")
    never(f"f(x)={number}x", f"f(y)={number}x")
    always(f"f(x)={number}x", f"f(t)={number}t")


WORDS = ["dozen", "hundred", "squared", "cubed", "factorial", "halves", "thirds", "times", "twice", "more", "plus"]
TAILS = ["not", "or more", "is not a solution", "at most", "or fewer", "is impossible", "minus one", "and a half"]


@few
@given(st.integers(3, 500), st.sampled_from(WORDS + TAILS))
def test_words_that_change_a_number_are_no_unit(number, words):
    never(str(number), f"{number} {words}")
    never(str(number), rf"{number} \text{{ {words}}}")


@few
@given(st.integers(2, 500), st.sampled_from(["apples", "cm", "red marbles", "km/h", "slices of pizza", "square feet"]))
def test_a_unit_may_be_left_out(number, unit):
    always(str(number), f"{number} {unit}")
    always(str(number), rf"{number} \text{{ {unit}}}")


@few
@given(small, st.permutations(["cm", "kg", "hours", "minutes", "feet"]))
def test_units_of_named_values_count(number, units):
    never(rf"x={number} \text{{ {units[0]}}}", rf"x={number} \text{{ {units[1]}}}")
    never(f"t={number} {units[0]}", f"t={number} {units[1]}")
    never(rf"\frac{{1}}{{{number}}} h", rf"\frac{{1}}{{{number}}}")
    never(rf"\frac{{dP}}{{dt}}=\frac{{a}}{{b}}P^{{{number}}}", r"\frac{dP}{dt}=\frac{a}{b}P")


@few
@given(small, small, small)
def test_false_equations_of_constants_are_not_the_same(first, second, third):
    never(f"{first}+{second}={first + second + 1}", f"{second}+{third}={second + third + 2 + first}")


@few
@given(st.lists(small, min_size=2, max_size=3, unique=True))
def test_named_values_are_a_tuple_in_the_order_of_names(values):
    names = "xyz"[: len(values)]
    named = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
    point = "(" + ",".join(map(str, values)) + ")"
    always(point, ", ".join(reversed(named)))
    always(f"({','.join(names)})={point}", ", ".join(named))
    never(point, ", ".join(f"{name}={value}" for name, value in zip(names, reversed(values), strict=True)))
    roots = ", ".join(f"x={value}" for value in values)
    never(roots, ", ".join(f"{name}={value}" for name, value in zip("ypq", values, strict=False)))
    always(roots, ", ".join(f"x_{place}={value}" for place, value in enumerate(reversed(values), 1)))


@few
@given(st.integers(-50, 50), st.integers(1, 50))
def test_an_interval_is_no_bag(low, width):
    never(f"[{low},{low + width}]", f"{low + width},{low}")
    never(f"[{low},{low + width}]", f"({low},{low + width})")


@few
@given(st.integers(1, 999), st.integers(1, 999))
def test_a_comma_behind_a_zero_groups_no_digits(number, other):
    never(str(number), f"0,{number:03d}")
    assert grade(f"{other}.{number:03d}1", f"{other},{number:03d}1").verdict is Verdict.EQUAL
    never(f"0.{number:03d}1", f"0,{number % 999 + 1:03d}2")


# --- notations -------------------------------------------------------------------------------------------------


@few
@given(st.lists(st.integers(-9, 9), min_size=4, max_size=4, unique=True))
def test_matrices(entries):
    a, b, c, d = entries
    matrix = rf"\begin{{pmatrix}}{a}&{b}\\{c}&{d}\end{{pmatrix}}"
    flipped = rf"\begin{{bmatrix}}{a}&{c}\\{b}&{d}\end{{bmatrix}}"
    always(matrix + "^T", flipped)
    always(rf"\begin{{vmatrix}}{a}&{b}\\{c}&{d}\end{{vmatrix}}", str(a * d - b * c))
    never(matrix, flipped)
    never(f"A={matrix}", f"A={flipped}")
    rounded = [rf"\begin{{pmatrix}}{entry}\\{a}\end{{pmatrix}}" for entry in ("0.67", r"\frac{2}{3}")]
    assert grade(*rounded).verdict is Verdict.EQUAL
    assert grade(*rounded, "strict").verdict is not Verdict.EQUAL


@few
@given(st.integers(2, 97), st.integers(2, 97))
def test_a_named_quantity_is_met_by_its_value(top, bottom):
    value = rf"\frac{{{top}}}{{{bottom}}}"
    for name in (r"\bar{x}", r"\frac{AB}{CD}", "f(3)", "P(X=1)", "P(A|B)", "x", r"\angle ABC"):
        always(f"{name}={value}", value)
        never(f"{name}={value}", rf"\frac{{{top + 1}}}{{{bottom}}}")
    always(f"AB:CD={top}:{bottom}", f"{top}:{bottom}")


NOTATIONS = [
    (r"{} \Omega", "{}"),
    ("-{}", "negative {}"),
    (r"\pm {}", "+/- {}"),
    (r"\pm {}", "+-{}"),
    (r"{}\mathbf{{i}}-\mathbf{{j}}", r"\langle {},-1\rangle"),
    (r"x={} \text{{ (since }} x>0)", "x={}"),
    ("{} m/s", r"{} \text{{ m s}}^{{-1}}"),
    (r"x^{}+C", "x^{}+c"),
    (r"{}.5^\circ", r"{}^\circ 30'"),
    (r"\binom{{{}}}{{2}}", r"{{{} \choose 2}}"),
    (r"\{{x \in \mathbb{{R}} : x > {}\}}", r"({},\infty)"),
    ("({0},7),(7,{0})", "(7,{0})or({0},7)"),
    (r"2^{{{0}}} \cdot 3^{{{0}}}", "2^{{{0}}} 3^{{{0}}}"),
]


@few
@given(st.integers(2, 90), st.sampled_from(NOTATIONS))
def test_two_notations_of_one_answer(number, notations):
    first, second = (notation.format(number) for notation in notations)
    always(first, second)
    never(first, notations[1].format(number + 1))


def test_numbers_in_words_are_numbers():
    for words, number in (("forty-two", 42), ("one hundred five", 105), ("3 hundred", 300), ("half a dozen", 6)):
        always(str(number), words)
        never(str(number + 1), words)


# --- the collected pairs ---------------------------------------------------------------------------------------


def test_the_pairs_found_outside_have_no_false_accept_and_few_misses():
    file = SHARED / "found" / "pairs.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for policy in ("strict", "default"):
        found = [grade(row["gold"], row["prediction"], policy).equal for row in rows]
        assert not [row for row, verdict in zip(rows, found, strict=True) if verdict and not row["equal"]]
    right = sum(row["equal"] is verdict for row, verdict in zip(rows, found, strict=True))
    assert right >= 0.9 * len(rows)


def test_a_gold_in_the_form_of_its_data_set_is_met():
    gold = "Each of 3 boxes holds 6 eggs.\n3*6=<<3*6=18>>18\n#### 18"
    assert grade(gold, "18").verdict is Verdict.EQUAL
    assert grade(gold, "19").verdict is Verdict.DIFFERENT
    assert grade(18, "18").verdict is Verdict.EQUAL
    assert grade([r"so \boxed{17}", 18.0], "18").verdict is Verdict.EQUAL
    assert grade(True, "1").verdict is Verdict.UNDECIDED
    assert grade(gold, "3").verdict is Verdict.DIFFERENT

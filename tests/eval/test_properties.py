"""What holds for every pair: reflexive, symmetric, exact, and never a hang or a crash.

ARBOR_FUZZ=10000 sets the number of hostile pairs, drawn anew in every run (otherwise a hundred or so, always the same).
"""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.grading.grader import Grade, Verdict, grade

FUZZ = int(os.environ.get("ARBOR_FUZZ", "120"))
FIXED = "ARBOR_FUZZ" not in os.environ  # the same pairs in every run, unless others are asked for
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=FIXED)
many = settings(
    max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=FIXED
)

atoms = st.sampled_from(
    [*"0123xynkA", "10", "0.5", "-3", r"\pi", "e", "i", r"\infty", r"\%", r"^\circ", "cm", r"\text{red}"]
)


BINARY = r"""
{}+{} {}-{} {}*{} \frac{{{}}}{{{}}} {}^{{{}}} {},{} ({},{}) [{},{}) \{{{},{}\}} {}={} {}<{}
\log_{{{}}}{} \binom{{{}}}{{{}}} {}\cup{} {}\pm{} {}:{}
"""
UNARY = r"\sqrt{{{}}} ({}) \sin({}) {}! |{}| \text{{{}}} -{} \lfloor{}\rfloor"


def _combined(inner):
    two = st.builds(str.format, st.sampled_from(BINARY.split()), inner, inner)
    return two | st.builds(str.format, st.sampled_from(UNARY.split()), inner)


latex = st.recursive(atoms, _combined, max_leaves=8)
REPEATED = ["{", "\\frac", "-", "\x00", "1/", "x=", "1<", "|", "\\pm", "$", "!", "1,", "\\begin{pmatrix}"]
EXTREME = r"(x+1)^{100000} \binom{10^9}{10^8} 1e999999999 2^{-10^9} 10^{10^{10}}! x^{x^{x^x}} \log_{1}0 0^{-1}"
hostile = st.one_of(
    latex,
    st.text(max_size=60),
    st.text("0123456789", min_size=30, max_size=5000),
    st.builds(lambda n, m: "9" + "^{9" * n + "}" * m, st.integers(1, 60), st.integers(1, 60)),
    st.builds(lambda n, m: "(" * n + "1" + ")" * m, st.integers(1, 900), st.integers(1, 900)),
    st.builds(lambda n: "^".join("9" * n), st.integers(2, 40)),
    st.builds(lambda text, n: text * n, st.sampled_from(REPEATED), st.integers(1, 400)),
    st.sampled_from([*EXTREME.split(), "\ud800"]),
    st.builds(lambda text, at, new: text[:at] + new + text[at:], latex, st.integers(0, 20), st.text(max_size=3)),
)
numbers = st.integers(-(10**25), 10**25) | st.integers(-500, 500)


@many
@given(hostile, hostile)
def test_hostile_pairs_are_graded_without_a_crash_and_symmetrically_under_strict(gold, prediction):
    assert isinstance(grade(gold, prediction), Grade)
    if gold.strip() and prediction.strip():
        assert grade(gold, prediction, "strict").verdict is grade(prediction, gold, "strict").verdict


def test_a_tower_of_factorials_is_read_the_same_from_both_sides():
    for text in ("!" * 329, "x" + "!" * 329, "x" + "%!" * 200):
        assert grade("lg0", text, "strict").verdict is grade(text, "lg0", "strict").verdict


@few
@given(latex)
def test_an_answer_equals_itself(answer):
    assert grade(answer, answer).verdict is Verdict.EQUAL
    assert grade(answer, f" {answer} ").verdict is Verdict.EQUAL


@few
@given(numbers, st.integers(1, 10**6))
def test_integers_that_differ_are_different_under_every_exact_policy(number, step):
    for policy in ("default", "strict"):
        assert grade(str(number), str(number + step), policy).verdict is Verdict.DIFFERENT
        assert grade(f"{number}x", f"{number + step}x", policy).verdict is Verdict.DIFFERENT


@few
@given(st.integers(1, 10**6), st.integers(2, 10**6), st.integers(1, 999))
def test_fractions_are_equal_exactly_when_their_values_are(top, bottom, factor):
    scaled = rf"\frac{{{top * factor}}}{{{bottom * factor}}}"
    assert grade(f"{top}/{bottom}", scaled).verdict is Verdict.EQUAL
    assert grade(f"{top}/{bottom}", rf"\frac{{{top * factor + 1}}}{{{bottom * factor}}}").verdict is Verdict.DIFFERENT


@few
@given(st.integers(1, 10**6), st.integers(3, 9))
def test_an_exact_gold_accepts_its_rounding_and_not_the_next_decimal(top, places):
    last = round(top * 10**places / 7)
    right, wrong = (f"{n // 10**places}.{n % 10**places:0{places}d}" for n in (last, last + 1))
    assert grade(f"{top}/7", right).verdict is Verdict.EQUAL
    assert grade(f"{top}/7", wrong).verdict is Verdict.DIFFERENT


@few
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=5), st.randoms())
def test_lists_are_equal_up_to_order_and_not_up_to_repetition(values, random):
    shuffled = random.sample(values, len(values))
    join = ", ".join
    assert grade(join(map(str, values)), join(map(str, shuffled))).verdict is Verdict.EQUAL
    assert grade(join(map(str, values)), join(map(str, [*values, values[0]]))).verdict is Verdict.DIFFERENT
    assert grade(join(map(str, [*values, values[0]])), join(map(str, values))).verdict is Verdict.DIFFERENT


@few
@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=9), st.randoms())
def test_a_rearranged_word_is_another_word(word, random):
    other = "".join(random.sample(word, len(word)))
    assert (grade(word, other).verdict is Verdict.EQUAL) == (word == other)

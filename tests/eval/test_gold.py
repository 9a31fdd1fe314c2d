"""Golds in the forms that data sets have them, read by one reader."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest

from eval.grading.gold import read_gold


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        ("He has 5-2=<<5-2=3>>3 left.\n#### 3", ("3",)),
        ("#### 12,500", ("12,500",)),
        ("first #### 4\n then #### 5 ", ("5",)),
        ("12,500", ("12,500",)),
        (r"Then $\boxed{\frac12}$ is too small, so $x=\boxed{\frac{3}{4}}$.", (r"\frac{3}{4}",)),
        (r"$\boxed{2}$ and $\boxed{3}$", ("2, 3",)),
        ("It is 9 a piece. The answer is: 72", ("72",)),
        (r"\frac{1}{2}", (r"\frac{1}{2}",)),
        ("[1, 2]", ("[1, 2]",)),
        ('["A", "B"]', ("A", "B")),
        (["18", 18, "18 eggs"], ("18", "18 eggs")),
        (7, ("7",)),
        (7.0, ("7",)),
        (0.25, ("0.25",)),
        (Decimal("1.50"), ("1.50",)),
        (Fraction(1, 3), ("1/3",)),
        (numpy.int64(4), ("4",)),
        (numpy.array([1.0, 2.5]), ("1", "2.5")),
    ],
)
def test_a_gold_is_read_from_every_form(answer, golds):
    assert read_gold(answer) == golds


@pytest.mark.parametrize(
    "answer", [None, True, False, "", "  ", "####", "so\n####  ", r"\boxed{}", [], [[]], ["1", None], {}, math.nan]
)
def test_what_is_no_answer_is_refused_with_what_would_be(answer):
    with pytest.raises(ValueError, match=r"no answer.*expected .*####"):
        read_gold(answer)

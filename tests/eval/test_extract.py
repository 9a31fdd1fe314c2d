"""Answers taken out of texts."""

import pytest

from eval.grading.extract import boxes, extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{\frac{1}{2}}$ and no more", r"\frac{1}{2}"),
        (r"\boxed{1} is wrong, \boxed{2} is right", "2"),
        (r"\boxed 7 is it", "7"),
        (r"\boxed{\text{a \} brace}}", r"\text{a \} brace}"),
        ("<p>\nFinal Answer: $12$\n</p>\n</step>", "$12$"),
        (r"Final Answer: The answer is $\boxed{5}$.", "5"),
        ("Final Answer: The final answer is $\\frac{2}{63}$. I hope it is correct.", "$\\frac{2}{63}$"),
        ("The answer is 3.5 dollars. That is all.", "3.5 dollars"),
        ("#### 18", "18"),
        ("We compute.\n```output\n7\n8\n```\n", "8"),
        ("<output>\n5\n</output>\n</step>", "5"),
        ("we get 1,234 apples", "1,234"),
        ("nothing here", ""),
        ("", ""),
    ],
)
def test_the_default_profile(text, answer):
    assert extract(text) == answer


def test_a_box_that_is_never_closed_is_no_answer():
    assert boxes(r"\boxed{1 + \boxed{2}") == ["2"]


def test_the_mario_profile_takes_the_final_answer_only():
    assert extract("<p>\nFinal Answer: $x=2$\n</p>\n</step>", "mario") == "x=2"
    assert extract(r"\boxed{3}", "mario") == ""


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="known"):
        extract("5", "unheard-of")

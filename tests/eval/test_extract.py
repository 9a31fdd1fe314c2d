"""What the answer of a text is, kind by kind; and that there is none where none clearly stands."""

from __future__ import annotations

import pytest

from eval.grading.extract import boxes, extract
from eval.grading.grader import grade

STATED = {
    "thinking sections": [
        (r"<think>Could it be \boxed{8}?</think>\boxed{9}", "9"),
        ("<thinking>The answer is 8.</thinking>\nThe answer is 9.", "9"),
        ("<Thought>\nFinal Answer: 8\n</Thought>\nIt comes to 9.", "9"),
        (r"the prompt opened it: \boxed{8}</think> The answer is 9.", "9"),
        (r"<think>a <think> b \boxed{8}</think> Final Answer: 9", "9"),
        ("<think>a</think>The answer is 9.<think>or \\boxed{8}?", "9"),
        (r"[THINK]\boxed{8}[/THINK]\boxed{9}", "9"),
        (
            r"<|channel|>analysis<|message|>\boxed{8}<|end|><|start|>assistant<|channel|>final<|message|>\boxed{9}<|return|>",
            "9",
        ),
        (r"analysisPerhaps \boxed{8}.assistantfinalThe answer is 9.", "9"),
        (r"<|begin_of_thought|>\boxed{8}<|end_of_thought|><|begin_of_solution|>\boxed{9}<|end_of_solution|>", "9"),
    ],
    "headings": [
        ("**Final Answer**\n\n\\boxed{9}", "9"),
        ("**Final Answer:**\n\n$$\n\\boxed{9}\n$$", "9"),
        ("### Final Answer\n\n9", "9"),
        ("## Answer\n\n**9**", "9"),
        ("Final Answer:\n\n\\[\n\\frac{9}{2}\n\\]", r"\frac{9}{2}"),
        ("Final Answer: \\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "boxes": [
        (r"\boxed{9}. The task asked for \boxed around it.", "9"),
        (r"An empty \boxed{} says nothing, \boxed{9} does.", "9"),
        (r"\boxed{9} it is. Write \boxed{\text{}} around your answer.", "9"),
        (r"The roots are \boxed{-4}, \boxed{1} and \boxed{6}.", "-4, 1, 6"),
        (r"$x = \boxed{2}$ and $y = \boxed{5}$.", "2, 5"),
        (r"At first \boxed{8}. Then, corrected, \boxed{9}.", "9"),
        (r"\boxed{\frac{4}{8}} = \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{8}, no, wait, \boxed{9}", "9"),
        (r"\boxed{8} is wrong, \boxed{9} is right", "9"),
        (r"It is \boxed{9}, not \boxed{8}.", "9"),
        (r"The first is \boxed{8} and the second is \boxed{9}.", "8, 9"),
        (r"\boxed{\text{a \} brace}}", r"\text{a \} brace}"),
        (r"It is \boxed{9}, so the result is \boxed{9}.", "9"),
        (r"\boxed{\{1, \{2\}\}}", r"\{1, \{2\}\}"),
    ],
    "the last of several": [
        ("Final Answer: 8\nFinal Answer: 9", "9"),
        ("The answer is 8. I check. The answer is 9.", "9"),
        ("\\boxed{8}\n\nI was wrong.\n\nFinal Answer: 9", "9"),
        ("Final Answer: 8\n\nI was wrong: \\boxed{9}", "9"),
        ("<answer>8</answer> or rather <answer>9</answer>", "9"),
    ],
    "a sentence that goes on": [
        ("The answer is 9 because 3 + 6 is 9.", "9"),
        ("The answer is 9, since 3 divides it.", "9"),
        ("The answer is 9!", "9"),
        ("The answer is $9!$.", "9!"),
        ("The answer is 2.5. It was 3 before.", "2.5"),
        ("So the answer is therefore 9.", "9"),
        ("The answer to the second question is 9 (as 3 + 6 = 9).", "9"),
        ("The answer is 9 and that is all.", "9"),
        ("The answer is (2, 7).", "(2, 7)"),
        ("The answer is $\\frac{1}{2}$, which is a half.", r"\frac{1}{2}"),
        ("The final answer is $9$. I hope it is correct.", "9"),
    ],
    "markers": [
        ("Answer: (D)", "D"),
        ("**Answer:** $2x+3$", "2x+3"),
        ("ANSWER: 9", "9"),
        ("Ans: 9", "9"),
        ("<answer> 9 </answer>", "9"),
        ("<answer>\\boxed{9}</answer>", "9"),
        ("The correct option is D", "D"),
        ("The correct choice is (D) because the others fail.", "D"),
        ("So D is the correct answer.", "D"),
        ("Two lines.\n#### 1,200", "1200"),
        ("#### Step 2: add\nThe answer is 9", "9"),
        ("The answer is 9<|im_end|>", "9"),
        ("\\boxed{9}</s>", "9"),
        ("The answer is 9<|eot_id|><|start_header_id|>user<|end_header_id|>\nThe answer is 8", "9"),
    ],
}
UNMARKED = [
    ("So the depth is \u221217.", "-17"),
    ("Hence p equals 3.2e-7", "3.2e-7"),
    ("so it is $\\frac{5}{8}$.", r"\frac{5}{8}"),
    ("That leaves \\frac{5}{8}.", r"\frac{5}{8}"),
    ("We get $3 + 4 = 7$.", "7"),
    ("3 + 4 = 7 apples are left.", "7"),
    ("The sum is 2 1/2.", "2 1/2"),
    ("It costs $12.50.", "12.50"),
    ("About 3 million people.", "3 million"),
    ("The points are (3, 4).", "(3, 4)"),
    ("These are 3, 4 and 5.", "3, 4 and 5"),
    ("Step 4: 9 remain.", "9"),
    ("That is 45 %.", "45%"),
    ("So x=\u22123", "-3"),
]
NONE = [
    "I cannot continue.",
    "Let me look at the 3 cases.",
    "We should try 12 next.",
    "Do 12 apples remain?",
    "This follows from equation 4.",
    "I stop at 1.5 \\times 10^{-3}",
    "We add 3 + 4.",
    "It is 3 \\pi.",
    "It is 2 ½.",
    "\\boxed{12",
    "\\boxed{}",
    "the answer is",
    "The answer is not 12.",
    "The answer is unknown.",
    "Final Answer:",
    "**Final Answer**",
    "<think>The answer is 12.</think>",
    "<think>The answer is 12.",
    "The answer is 12.</think>",
    "```python\nprint(6 * 7)\n```",
    "```python\nprint(6 * 7)\n```\n```output\nTypeError: no\n```\nI cannot continue.",
    "```python\nx = 1\n```\n```output\nDone\n```\nThat was all.",
    "`print(6*7)` gives 42.",
    "5 or more",
    "between 3 and 5",
    "",
]


@pytest.mark.parametrize("kind", STATED)
def test_a_stated_answer_is_found(kind: str) -> None:
    wrong = [
        (text, found)
        for text, answer in STATED[kind]
        if grade(answer, found := extract(text, stated=kind != "thinking sections")).equal is not True
    ]
    assert not wrong


@pytest.mark.parametrize(("text", "answer"), UNMARKED)
def test_without_a_marker_the_last_quantity_is_taken_whole(text: str, answer: str) -> None:
    assert extract(text) == answer and extract(text, stated=True) == ""


@pytest.mark.parametrize("text", NONE)
def test_where_no_clear_answer_stands_none_is_given(text: str) -> None:
    assert extract(text) == ""


def test_what_a_program_printed_last_counts_where_the_text_states_nothing() -> None:
    text = "```python\nprint(18)\n```\n```output\n17\n18\n```\nThat is all."
    assert extract(text) == "18" and extract(text, stated=True) == ""
    assert extract(f"{text} The answer is 9.") == "9"


def test_a_list_in_boxes_is_no_way_to_hedge() -> None:
    assert grade("3", extract(r"It is \boxed{3} or \boxed{4}.")).equal is not True


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{\frac{1}{2}}$ and no more", r"\frac{1}{2}"),
        (r"\boxed 7 is it", "7"),
        ("<p>\nFinal Answer: $12$\n</p>\n</step>", "$12$"),
        (r"Final Answer: The answer is $\boxed{5}$.", "5"),
        ("Final Answer: The final answer is $\\frac{2}{63}$. I hope it is correct.", "$\\frac{2}{63}$"),
        ("The answer is 3.5 dollars. That is all.", "3.5 dollars"),
        ("#### 18", "18"),
        ("We compute.\n```output\n7\n8\n```\n", "8"),
        ("<output>\n5\n</output>\n</step>", "5"),
        ("we get 1,234 apples", "1,234"),
        ("nothing here", ""),
    ],
)
def test_the_default_profile(text, answer):
    assert extract(text) == answer


def test_a_box_that_is_never_closed_is_no_answer():
    assert boxes(r"\boxed{1 + \boxed{2}") == ["2"]


def test_the_mario_profile_takes_the_final_answer_only():
    assert extract("<p>\nFinal Answer: $x=2$\n</p>\n</step>", "mario") == "x=2"
    assert extract(r"\boxed{3}", "mario") == ""


def test_the_published_rules_stay_reachable() -> None:
    text = "<think>The answer is 8.</think> \\boxed{9} and \\boxed 7"
    assert extract(text, "tora") == "7" and extract("Final Answer: 8\nFinal Answer: 9", "mario") == "9"
    with pytest.raises(ValueError, match="choose one of"):
        extract(text, "none")


@pytest.mark.parametrize("text", ["$" * 9999, "\\boxed{" * 9999, "{" * 9999, "the answer is " * 2000, "1, " * 5000])
def test_a_long_text_takes_no_long_time(text: str) -> None:
    import time

    started = time.perf_counter()
    extract(text)
    assert time.perf_counter() - started < 2.0

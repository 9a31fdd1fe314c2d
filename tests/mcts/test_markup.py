"""Both markups: reading steps, writing observations, and the shipped examples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mcts.config import Config
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.markup import MARKUPS, PROMPTS, Frame, SftMarkup, code_body, make_markup, register_markup

SFT = SftMarkup()
SNIPPET = re.compile(r"```python\n(.*?)\n```\nObservation: (.*?)\n\n", re.DOTALL)
CODE = "<step>\n<p>\nT\n</p>\n<code>\n```python\nprint(1)\n```"


def test_an_sft_code_step_gets_its_closing_tag_and_observation_back() -> None:
    step = SFT.read(f"\n{CODE}\n")
    assert step.code == "```python\nprint(1)\n```" and not step.final_answer
    assert SFT.observed(step, "1") == f"{CODE}\n</code>\n<output>\n1\n</output>\n</step>"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Final Answer: $7$\n</p>\n", "7"),
        ("Final Answer: 7", "7"),
        ("Final Answer: $\\frac{1}{2}$ </p>", "\\frac{1}{2}"),
        ("Final Answer: $1$ and $2$\n</p>", "1$ and $2"),
        ("Final Answer: $ 5 $", "5"),
        ("Final Answer: </p> x </p>", "</p> x"),
    ],
)
def test_the_final_answer_stands_before_the_last_p_without_its_dollars(text: str, answer: str) -> None:
    step = SFT.read("<step>\n<p>\n" + text)
    assert step.final_answer == answer and step.text.endswith("\n</step>")


@pytest.mark.parametrize(
    "text",
    ["", "<step>\n<p>\nthinking", "<code>\nprint(1)\n", "<code>\n```python\nprint(1)\n", f"{CODE}\nFinal Answer: 1",
     "Final Answer: </p>", "Final Answer:"],
)  # fmt: skip
def test_neither_or_both_or_nothing_is_unparsable(text: str) -> None:
    assert not SFT.read(text).parsable


def test_the_react_markup_reads_actions_and_answers() -> None:
    react = make_markup("react", "\n\n")
    step = react.read("Thought: t\nAction: python_interpreter\nAction Input: ```python\nprint(2)\n```")
    assert code_body(step.code) == "print(2)"
    assert react.observed(step, "2").endswith("```\nObservation: 2")
    assert react.read("Thought: t\nFinal Answer: $2$").final_answer == "2"
    assert not react.read("Thought: t").parsable
    assert not react.read("Thought: t\nAction: calculator\nAction Input: 2").parsable
    assert not react.read("Action: python_interpreter\nAction Input: 2\nFinal Answer: 2").parsable


def test_the_react_prompt_holds_as_many_examples_as_asked() -> None:
    examples = json.loads((PROMPTS / "react_examples.json").read_text(encoding="utf-8"))
    for count in (0, 2, len(examples)):
        prompt = make_markup("react", "\n\n", num_few_shot=count).prompt("Who?")
        assert prompt.count("\nQuestion: ") == count + 1
        assert prompt.endswith("Question: Who?\n\n")


async def test_the_code_of_every_example_runs_and_prints_what_it_says(interpreter: ForkInterpreter) -> None:
    examples = json.loads((PROMPTS / "react_examples.json").read_text(encoding="utf-8"))
    for example in examples:
        steps = SNIPPET.findall(example["solution"])
        state = None
        for code, observation in steps:
            execution = await interpreter.run(state, code)
            state = execution.state
            assert execution.observation == observation
        assert steps


def test_prompt_files_of_ones_own_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Do it.", encoding="utf-8")
    (tmp_path / "e.json").write_text('[{"question": "a", "solution": "b"}]', encoding="utf-8")
    markup = make_markup("react", "\n\n", str(tmp_path / "p.txt"), str(tmp_path / "e.json"))
    assert markup.prompt("q") == "Do it.\n\nQuestion: a\n\nb\n\nQuestion: q\n\n"
    (tmp_path / "e.json").write_text('{"question": "a"}', encoding="utf-8")
    with pytest.raises(ValueError, match="expected a list"):
        make_markup("react", "\n\n", None, str(tmp_path / "e.json"))


@pytest.mark.parametrize("fence", ["```python\nx\n```", "```\nx\n```", "```py\nx\n```", "x"])
def test_the_fence_of_code_is_taken_off(fence: str) -> None:
    assert code_body(fence) == "x"


def test_a_markup_from_outside_is_made_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "i.txt").write_text("Do it.\n", encoding="utf-8")
    (tmp_path / "e.json").write_text('[{"question": "a", "solution": "b"}]', encoding="utf-8")

    @register_markup("own", instructions=tmp_path / "i.txt", examples={"easy": tmp_path / "e.json"}, ends_with_eos=True)
    def own(frame: Frame) -> SftMarkup:
        seen.append(frame)
        return SftMarkup(frame.step_delim, frame.published)

    seen: list[Frame] = []
    try:
        assert Config(prompt_wrap="own", result_unwrap="own").prompt_wrap == "own"
        assert make_markup("own", "\n", published=True).published
        assert (seen[0].instructions, seen[0].examples) == ("Do it.", [("a", "b")])
        assert MARKUPS["own"].ends_with_eos and MARKUPS["own"].examples_file("hard") == tmp_path / "e.json"
    finally:
        del MARKUPS._entries["own"]
    with pytest.raises(UserError, match="unknown markup 'own'"):
        make_markup("own", "\n")


def test_what_a_markup_needs_stands_in_its_entry() -> None:
    assert {name for name in MARKUPS if MARKUPS[name].needs_extractor} >= {"tora", "pal", "cot"}
    with pytest.raises(ValueError, match="extracts an answer"):
        make_markup("tora", "\n")

"""How a step is written down: the SFT markup ("react_sft") and the base-model few-shot markup ("react").

A markup turns a question into a prompt, reads what the model wrote as a step, and writes the observation of
its code back. It knows neither tokens nor the search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PYTHON_INTERPRETER = "python_interpreter"
PROMPTS = Path(__file__).parent / "prompts"
_FENCE = re.compile(r"```(?:[Pp]ython|py)?[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """What the model wrote, read: exactly one of `code` and `final_answer`, or neither when it is unparsable."""

    text: str
    code: str = ""
    final_answer: str = ""

    @property
    def parsable(self) -> bool:
        return bool(self.code) or bool(self.final_answer)


class Markup(Protocol):
    step_delim: str

    def prompt(self, question: str) -> str:
        """The text that stands before the first step."""

    def read(self, text: str) -> Step:
        """The step in a sample's text (the text before the stop string)."""

    def observed(self, step: Step, observation: str) -> str:
        """The whole text of a code step, once its code has run."""


def code_body(fenced: str) -> str:
    """The code inside its markdown fence; text without a fence is returned as it is."""
    match = _FENCE.search(fenced)
    return match.group(1) if match else fenced


def _unwrap_dollars(answer: str) -> str:
    answer = answer.strip()
    if len(answer) >= 2 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer


class SftMarkup:
    """The XML markup of the fine-tuned AlphaMath models."""

    def __init__(self, step_delim: str = "\n") -> None:
        self.step_delim = step_delim

    def prompt(self, question: str) -> str:
        return f"<question> {question} </question>\n"

    def read(self, text: str) -> Step:
        text = text.strip()
        _, tag, after = text.partition("<code>")
        fenced, fence, _ = after.rpartition("```")
        has_code = bool(tag) and "```" in fenced
        has_answer = "Final Answer:" in text
        if has_code == has_answer:
            return Step(text)
        if has_code:
            return Step(f"{text}\n</code>", code=(fenced + fence).strip())
        return Step(f"{text}\n</step>", final_answer=self._answer(text))

    @staticmethod
    def _answer(text: str) -> str:
        answer = text.partition("Final Answer:")[2]
        before, tag, _ = answer.rpartition("</p>")
        return _unwrap_dollars(before if tag else answer)

    def observed(self, step: Step, observation: str) -> str:
        return f"{step.text}{self.step_delim}<output>\n{observation}\n</output>\n</step>"


class ReactMarkup:
    """Thought / Action / Action Input / Observation with worked examples, for models that were never tuned on it."""

    def __init__(self, instructions: str, examples: Sequence[str], step_delim: str = "\n\n") -> None:
        self.step_delim = step_delim
        self._head = "\n\n".join([instructions.strip(), *(example.strip() for example in examples)])

    def prompt(self, question: str) -> str:
        return f"{self._head}\n\nQuestion: {question}\n\n"

    def read(self, text: str) -> Step:
        text = text.strip()
        _, action, rest = text.partition("Action Input:")
        has_answer = "Final Answer:" in text
        has_code = bool(action) and f"Action: {PYTHON_INTERPRETER}" in text and bool(rest.strip())
        if has_code == has_answer:
            return Step(text)
        if has_code:
            return Step(text, code=rest.strip())
        return Step(text, final_answer=_unwrap_dollars(text.partition("Final Answer:")[2]))

    def observed(self, step: Step, observation: str) -> str:
        return f"{step.text}\nObservation: {observation}"


def _react(step_delim: str, prompt_path: str | None, few_shot_path: str | None, num_few_shot: int) -> ReactMarkup:
    instructions = Path(prompt_path or PROMPTS / "react.txt").read_text(encoding="utf-8")
    examples_path = Path(few_shot_path or PROMPTS / "react_examples.json")
    examples = json.loads(examples_path.read_text(encoding="utf-8"))
    if not isinstance(examples, list) or not all(
        isinstance(row, dict) and {"question", "solution"} <= row.keys() for row in examples
    ):
        raise ValueError(f'{examples_path}: expected a list of {{"question": …, "solution": …}}')
    chosen = [f"Question: {row['question']}\n\n{row['solution']}" for row in examples[:num_few_shot]]
    return ReactMarkup(instructions, chosen, step_delim)


def _sft(step_delim: str, prompt_path: str | None, few_shot_path: str | None, num_few_shot: int) -> SftMarkup:
    return SftMarkup(step_delim)


MARKUPS: dict[str, Callable[[str, str | None, str | None, int], Markup]] = {"react": _react, "react_sft": _sft}


def make_markup(
    name: str, step_delim: str, prompt_path: str | None = None, few_shot_path: str | None = None, num_few_shot: int = 2
) -> Markup:
    """The markup `name` ("react" or "react_sft").

    `prompt_path`: a text file with the instructions; `few_shot_path`: a JSON list of objects with `question` and
    `solution`; None takes what is shipped. Raises OSError and ValueError for files that cannot be read.
    """
    return MARKUPS[name](step_delim, prompt_path, few_shot_path, num_few_shot)

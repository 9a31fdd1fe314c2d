"""What a markup makes of a sample, and what the search expects of a markup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PYTHON_INTERPRETER = "python_interpreter"
PROMPTS = Path(__file__).parents[1] / "prompts"
_FENCE = re.compile(r"```(?:[Pp]ython|py)?[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """What the model wrote, read: one of `code`, `final_answer` and `thought`, or none when it is unparsable.

    answers: what the code prints last is the final answer. thought: neither code nor answer; the solution goes on.
    """

    text: str
    code: str = ""
    final_answer: str = ""
    answers: bool = False
    thought: bool = False

    @property
    def parsable(self) -> bool:
        return bool(self.code) or bool(self.final_answer) or self.thought


class Markup(Protocol):
    """stop: strings that end a step where the configuration names none."""

    step_delim: str
    stop: tuple[str, ...]

    def prompt(self, question: str) -> str:
        """The text that stands before the first step."""

    def read(self, text: str, before: str = "", ended: bool = False) -> Step:
        """The step in a sample's text (the text before the stop string). before: the text of the step before it;
        ended: it ended for another reason than its length or the delimiter."""

    def observed(self, step: Step, observation: str) -> str:
        """The whole text of a code step, once its code has run."""

    def written(self, text: str) -> int:
        """How many characters at the beginning of a code step's whole text the model wrote itself."""


def code_body(fenced: str) -> str:
    """The code inside its markdown fence; text without a fence is returned as it is."""
    match = _FENCE.search(fenced)
    return match.group(1) if match else fenced

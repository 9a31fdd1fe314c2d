"""What a markup makes of a sample, and what the search expects of a markup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from mcts.interpreter.fences import program
from mcts.model import Conversation, Finish, Message

PYTHON_INTERPRETER = "python_interpreter"
PROMPTS = Path(__file__).parents[1] / "prompts"
_NO_ANSWER = re.compile(
    r"(?:done|error|timeout error|\.\.\.|…|\?+)?[.!]?"
    r"|(?:[a-z_]\w*\.)*[a-z_]*(?:error|exception|exit|interrupt|warning|stopiteration)\b(?::.*)?"
    r"|traceback \(most recent call last\).*",
    re.IGNORECASE | re.DOTALL,
)
_NO_VALUE = frozenset({"None", "nan", "NaN"})  # what Python prints where a program found nothing


@dataclass(frozen=True)
class Step:
    """What the model wrote, read: one of `code`, `final_answer` and `thought`, or none when it is unparsable.

    answers: what the code prints last is the final answer. thought: neither code nor answer; the solution goes on.
    added: the end of `text` that the markup wrote in the model's place, control tokens included.
    """

    text: str
    code: str = ""
    final_answer: str = ""
    answers: bool = False
    thought: bool = False
    added: str = ""

    @property
    def parsable(self) -> bool:
        return bool(self.code) or bool(self.final_answer) or self.thought


class Extract(Protocol):
    """Takes the answer out of a text; "" where it gives none."""

    def __call__(self, text: str, *, stated: bool = False) -> str:
        """stated: only what the text calls its answer, not the last output of a program or the last number."""


class Markup(Protocol):
    """stop: strings that end a step where the configuration names none."""

    step_delim: str
    stop: tuple[str, ...]

    def prompt(self, question: str) -> str | Conversation:
        """What stands before the first step."""

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        """The step in a sample's text (the text before the stop string). before: the texts of all steps before it,
        joined by the delimiter; finish, stop: how the sample ended, and the stop string that it ended with."""

    def observed(self, step: Step, observation: str) -> str:
        """The whole text of a code step, once its code has run."""

    def written(self, text: str) -> int:
        """How many characters at the beginning of a code step's whole text the model wrote itself."""


@runtime_checkable
class Turns(Protocol):
    """What a markup of a chat offers beside the methods of `Markup`."""

    def conversation(self, messages: tuple[Message, ...], *, follows: bool = False) -> Conversation:
        """Turns, to be laid out as this chat is."""

    def reply(self, observation: str) -> Conversation | None:
        """The turns that bring an observation; None: it stands in the model's own text."""

    def parted(self, text: str) -> tuple[str, Conversation] | None:
        """(what the model wrote, the turns that bring the observation) of a step's whole text; None where it has none,
        or where it stands in the model's own text."""

    def limits(self, before: str, spent: int, max_tokens: int) -> tuple[tuple[str, ...] | None, int]:
        """(stop strings, tokens at most) of the step behind `before`, which took `spent` tokens. None: those that the
        configuration or the markup names."""


def code_body(fenced: str) -> str:
    """The code inside its markdown fences; text without a fence is returned as it is."""
    return program(fenced)


def answer_of(text: str) -> str:
    """An answer as it was given, "" for what is none: nothing, `Done`, an error message."""
    text = text.strip()
    return "" if _NO_ANSWER.fullmatch(text) else text


def printed_answer(observation: str) -> str:
    """The answer that a program printed: its last line, "" where that is none."""
    line = observation.strip().rpartition("\n")[2]
    return "" if line.strip() in _NO_VALUE else answer_of(line)

"""The agents of ToRA (https://arxiv.org/abs/2309.17452) as markups: tool-integrated (`tora`), program-aided (`pal`) and
chain of thought (`cot`).

What differs from the published loop, on purpose: every block that a model writes between two outputs runs, not the last
one alone; code runs although the same text holds a box; text that breaks off inside a block is no answer; an error of a
PAL program is no answer; nothing is appended when the tool calls are used up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mcts.markup.step import Step

_BLOCK = re.compile(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_ANSWER = re.compile(r"\\boxed|\\fbox|answer\s+is\b|final answer\s*:|####", re.IGNORECASE)
_PYTHON = ("python", "py", "python3", "Python")
_OUTPUT = "\n```output"
_BETWEEN = "\n\n---\n\n"


class Chat:
    """The prompt of trained models. stop: strings that show that the model has gone on to another question."""

    stop: tuple[str, ...] = ()

    def prompt(self, question: str, cue: str) -> str:
        """`cue` follows the question in front of a few-shot solution."""
        return f"<|user|>\n{question}\n<|assistant|>\n"


class Examples(Chat):
    """Instructions and worked examples (question, solution), for models that were never tuned on the markup."""

    stop = ("\n---", "\nQuestion:")

    def __init__(self, instructions: str, examples: Sequence[tuple[str, str]]) -> None:
        self.instructions, self.examples = instructions, examples

    def prompt(self, question: str, cue: str) -> str:
        shown = [f"Question: {text}{cue}\n{solution}" for text, solution in self.examples]
        return _BETWEEN.join([self.instructions, *shown, f"Question: {question}{cue}"])


class ToraMarkup:
    """Rationale, a ```python block, its ```output block, and so on, until a step without code gives the answer."""

    cue = "\n\nSolution:"

    def __init__(self, frame: Chat, extract: Callable[[str], str], step_delim: str = "\n") -> None:
        self.frame, self.extract = frame, extract
        self.step_delim = "\n"  # the only one: trained models know no other
        self.stop: tuple[str, ...] = ("```output", "</s>", *frame.stop)

    def prompt(self, question: str) -> str:
        return self.frame.prompt(question, self.cue)

    def read(self, text: str, before: str = "", ended: bool = False) -> Step:
        text = text.rstrip()
        blocks = list(_BLOCK.finditer(text))
        code = "\n".join(block[2] for block in blocks if block[1] in _PYTHON)
        if code.strip() and not text[blocks[-1].end() :].strip():
            return self._code(text, code)
        prose = _BLOCK.sub("", text)
        if "```" in prose and not _ANSWER.search(prose.partition("```")[0]):
            return Step(text)
        return Step(text, final_answer=self.extract(before + self.step_delim + prose) if prose.strip() else "")

    def _code(self, text: str, code: str) -> Step:
        return Step(text, code=code)

    def observed(self, step: Step, observation: str) -> str:
        return f"{step.text}{_OUTPUT}\n{observation}\n```"

    def written(self, text: str) -> int:
        """The word that stops a trained model is its own: it has to learn to write it."""
        before, output, _ = text.partition(_OUTPUT)
        return len(before) + len(output)


class PalMarkup(ToraMarkup):
    """One program that defines `solution()`; what this returns is the answer."""

    cue = ""

    def read(self, text: str, before: str = "", ended: bool = False) -> Step:
        """A text without any fence is a program as well."""
        text = text.rstrip()
        return super().read(text, before, ended) if "```" in text or not text else self._code(text, text)

    def _code(self, text: str, code: str) -> Step:
        return Step(text, code=f"{code}\nprint(solution())", answers=True)


class CotMarkup:
    """Prose. A step is a paragraph, or a line with `step_delim` "\\n"; one that states an answer is the last one."""

    cue = "\nAnswer:"

    def __init__(self, frame: Chat, extract: Callable[[str], str], step_delim: str = "\n\n") -> None:
        self.frame, self.extract, self.step_delim = frame, extract, step_delim
        self.stop: tuple[str, ...] = (step_delim, "</s>", *frame.stop)

    def prompt(self, question: str) -> str:
        return self.frame.prompt(question, self.cue)

    def read(self, text: str, before: str = "", ended: bool = False) -> Step:
        following = [at for stop in self.frame.stop if (at := f"\n{text}".find(stop)) >= 0]
        text = (text[: max(0, min(following) - 1)] if following else text).rstrip()
        if _ANSWER.search(text) or ended or following:
            return Step(text, final_answer=self.extract(text if text.strip() else before))
        return Step(text, thought=bool(text.strip()))

    def observed(self, step: Step, observation: str) -> str:
        return step.text

    def written(self, text: str) -> int:
        return len(text)

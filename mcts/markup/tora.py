"""The agents of ToRA (https://arxiv.org/abs/2309.17452) as markups: tool-integrated (`tora`), program-aided (`pal`) and
chain of thought (`cot`).

What differs from the published loop, unless `published` asks for it: every block that a model writes between two
outputs runs, whatever its fence says, not the last one alone; code runs although the same text holds a box; text that
breaks off is no answer, and neither is a draft in a thinking section, an error message or a number beside code that did
not run.
What differs in any case: an error of a PAL program is no answer; nothing is appended when the tool calls are used up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from mcts.interpreter.fences import blocks
from mcts.markup.program import read_program
from mcts.markup.registry import Frame, MarkupEntry
from mcts.markup.step import PROMPTS, Extract, Markup, Step, printed_answer
from mcts.markup.visible import thinking, visible
from mcts.model import Finish

_OUTPUT = "\n```output"
_ASKS_FOR_OUTPUT = "```output"
_LAST_OUTPUT = re.compile(r"```output\n((?:(?!```output\n).)*?)\n?```\s*\Z", re.DOTALL)
_HEADING = re.compile(r"answer\W*\Z", re.IGNORECASE)
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

    def __init__(self, frame: Chat, extract: Extract, step_delim: str = "\n", published: bool = False) -> None:
        self.frame, self.extract, self.published = frame, extract, published
        self.step_delim = "\n"  # the only one: trained models know no other
        self.stop: tuple[str, ...] = (_ASKS_FOR_OUTPUT, "</s>", *frame.stop)

    def prompt(self, question: str) -> str:
        return self.frame.prompt(question, self.cue)

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        text = text.rstrip()
        if self.published:
            return self._published(text, before)
        said = visible(f"\n{text}".partition(_OUTPUT)[0][1:])  # an output that the model made up is none
        asks = stop.startswith(_ASKS_FOR_OUTPUT) or _OUTPUT in f"\n{text}"
        program = read_program(said, complete=asks)
        if program.code:
            return self._code(text[: text.rindex(program.last) + len(program.last)], program.code)
        if asks or finish == "length" or program.unrunnable or not said.strip():
            return Step(text)
        return Step(text, final_answer=self._answer(said, before))

    def _answer(self, said: str, before: str) -> str:
        """What the text says is the answer; else what the program before it printed; else the number it ends with."""
        output = _LAST_OUTPUT.search(before)
        if output is None:
            return self.extract(said)
        return self.extract(said, stated=True) or printed_answer(output[1])

    def _published(self, text: str, before: str) -> Step:
        """The published loop: a text that ends in a block and says nothing of a box runs the last block; any other is
        the end, and its answer is extracted, whatever it is."""
        programs = [block for block in blocks(text) if block.label == "python"]
        if programs and "boxed" not in text and text.endswith("```"):
            return self._code(text, programs[-1].body + "\n")
        return Step(text, final_answer=self.extract(f"{before}{self.step_delim}{text}"))

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

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        """A text without any fence is a program as well."""
        bare = text if self.published else visible(text)
        if not bare.strip() or "```" in bare or "~~~" in bare:
            return super().read(text, before, finish, stop)
        cut = finish == "length" and not self.published
        return Step(text.rstrip()) if cut else self._code(text.rstrip(), bare.rstrip())

    def _code(self, text: str, code: str) -> Step:
        return Step(text, code=f"{code}\nprint(solution())", answers=True)


class CotMarkup:
    """Prose. A step is a paragraph, or a line with `step_delim` "\\n"; one that states an answer is the last one."""

    cue = "\nAnswer:"

    def __init__(self, frame: Chat, extract: Extract, step_delim: str = "\n\n", published: bool = False) -> None:
        self.frame, self.extract, self.step_delim, self.published = frame, extract, step_delim, published
        self.stop: tuple[str, ...] = (step_delim, "</s>", *frame.stop)

    def prompt(self, question: str) -> str:
        return self.frame.prompt(question, self.cue)

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        following = [at for mark in self.frame.stop if (at := f"\n{text}".find(mark)) >= 0]
        text = (text[: max(0, min(following) - 1)] if following else text).rstrip()
        ended = finish == "eos" or stop not in ("", self.step_delim) or bool(following)
        said = self._said(text, before)
        stated = self.extract(said, stated=True)
        if finish == "length" and not self.published:
            return Step(text, thought=bool(text.strip()) and not stated)
        if stated or not ended:
            return Step(text, final_answer=stated, thought=not stated and bool(text.strip()))
        return Step(text, final_answer=self.extract(said if text.strip() else visible(before)))

    def _said(self, text: str, before: str) -> str:
        """The step without what is thought; behind a heading, with it."""
        if self.published:
            return text
        if thinking(before):
            return visible(f"<think>{text}")
        heading = before.rstrip().rpartition("\n")[2]
        return visible(f"{heading}\n\n{text}" if text.strip() and _HEADING.search(heading) else text)

    def observed(self, step: Step, observation: str) -> str:
        return step.text

    def written(self, text: str) -> int:
        return len(text)


def _frame(frame: Frame) -> Chat:
    return Chat() if frame.train_prompt else Examples(frame.instructions, frame.examples)


def _shipped(name: str) -> dict[str, Any]:
    files = {level: PROMPTS / f"{name}_{level}.json" for level in ("math", "gsm8k")}
    return {"instructions": PROMPTS / f"{name}.txt", "examples": files, "ends_with_eos": True, "needs_extractor": True}


def _make(kind: type[ToraMarkup] | type[CotMarkup]) -> Callable[[Frame], Markup]:
    def make(frame: Frame) -> Markup:
        assert frame.extract is not None
        return kind(_frame(frame), frame.extract, frame.step_delim, frame.published)

    return make


TORA = MarkupEntry(_make(ToraMarkup), answer_from="prose", **_shipped("tora"))
PAL = MarkupEntry(_make(PalMarkup), answer_from="program", **_shipped("pal"))
COT = MarkupEntry(_make(CotMarkup), "\n\n", answer_from="prose", **_shipped("cot"))

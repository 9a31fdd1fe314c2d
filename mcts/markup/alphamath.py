"""The markups of AlphaMath: of its tuned models ("react_sft") and few-shot for base models ("react")."""

from __future__ import annotations

from collections.abc import Sequence

from mcts.interpreter.fences import blocks
from mcts.markup.registry import Frame, MarkupEntry
from mcts.markup.step import PROMPTS, PYTHON_INTERPRETER, Step, answer_of, code_body
from mcts.markup.visible import visible
from mcts.model import Finish

_ANSWER = "Final Answer:"


def _unwrap_dollars(answer: str) -> str:
    answer = answer.strip()
    if len(answer) >= 2 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer


def _answer(text: str, published: bool) -> str:
    """What stands behind the last "Final Answer:" (published: the first), before the last </p> if there is one."""
    answer = text.partition(_ANSWER)[2] if published else text.rpartition(_ANSWER)[2]
    before, tag, _ = answer.rpartition("</p>")
    answer = _unwrap_dollars(before if tag else answer)
    return answer if published else answer_of(answer)


class SftMarkup:
    """The XML markup of the fine-tuned AlphaMath models.

    published: the published rules, by which an answer may stand in a thinking section or be cut off.
    """

    stop: tuple[str, ...] = ()

    def __init__(self, step_delim: str = "\n", published: bool = False) -> None:
        self.step_delim, self.published = step_delim, published

    def prompt(self, question: str) -> str:
        return f"<question> {question} </question>\n"

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        text = text.strip()
        said = text if self.published else visible(text)
        _, tag, after = said.partition("<code>")
        code = _fenced(after)
        has_answer = _ANSWER in said
        if (bool(tag) and bool(code)) == has_answer:
            return Step(text)
        if code:
            return Step(f"{text}\n</code>", code=code)
        cut = finish == "length" and not self.published
        return Step(f"{text}\n</step>", final_answer="" if cut else _answer(said, self.published))

    def observed(self, step: Step, observation: str) -> str:
        return f"{step.text}{self.step_delim}<output>\n{observation}\n</output>\n</step>"

    def written(self, text: str) -> int:
        before, tag, _ = text.partition(f"</code>{self.step_delim}<output>\n")
        return len(before) + len("</code>") if tag else len(text)


def _fenced(text: str) -> str:
    """The text up to the end of its last fenced block, "" where no block is closed."""
    end = max((block.end for block in blocks(text) if block.closed), default=0)
    return text[:end].strip()


class ReactMarkup:
    """Thought / Action / Action Input / Observation with worked examples, for models that were never tuned on it.

    published: as for SftMarkup.
    """

    stop: tuple[str, ...] = ()

    def __init__(
        self, instructions: str, examples: Sequence[str], step_delim: str = "\n\n", published: bool = False
    ) -> None:
        self.step_delim, self.published = step_delim, published
        self._head = "\n\n".join([instructions, *examples])

    def prompt(self, question: str) -> str:
        return f"{self._head}\n\nQuestion: {question}\n\n"

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        text = text.strip()
        said = text if self.published else visible(text)
        _, action, rest = said.partition("Action Input:")
        has_answer = _ANSWER in said
        has_code = bool(action) and f"Action: {PYTHON_INTERPRETER}" in said and bool(rest.strip())
        cut = finish == "length" and not self.published
        if has_code == has_answer or (cut and (has_answer or not _fenced(rest))):
            return Step(text)
        if has_code:
            return Step(text, code=rest.strip())
        return Step(text, final_answer=_answer(said, self.published))

    def observed(self, step: Step, observation: str) -> str:
        return f"{step.text}\nObservation: {observation}"

    def written(self, text: str) -> int:
        return len(text.partition("\nObservation: ")[0])


def react_to_sft(text: str, code: str, final_answer: str, step_delim: str = "\n") -> str:
    """A whole step of the base-model markup in the SFT markup, so that paths of a base model teach a tuned one.

    text: the step with its observation; code, final_answer: what was read from it.
    """
    thought, _, observation = text.partition("\nObservation: ")
    ends = [at for mark in ("Action:", "Final Answer:") if (at := thought.find(mark)) >= 0]
    thought = thought[: min(ends, default=len(thought))].strip().removeprefix("Thought:").strip()
    if final_answer:
        return f"<step>\n<p>\n{thought}\n</p>\n<p>\nFinal Answer: {final_answer}\n</p>\n</step>"
    step = Step(f"<step>\n<p>\n{thought}\n</p>\n<code>\n```python\n{code_body(code)}\n```\n</code>", code)
    return SftMarkup(step_delim).observed(step, observation)


def _react(frame: Frame) -> ReactMarkup:
    shown = [f"Question: {question}\n\n{solution}" for question, solution in frame.examples]
    return ReactMarkup(frame.instructions, shown, frame.step_delim, frame.published)


REACT_SFT = MarkupEntry(lambda frame: SftMarkup(frame.step_delim, frame.published))
REACT = MarkupEntry(_react, "\n\n", PROMPTS / "react.txt", {"": PROMPTS / "react_examples.json"})

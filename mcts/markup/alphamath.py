"""The markups of AlphaMath: of its tuned models ("react_sft") and few-shot for base models ("react")."""

from __future__ import annotations

from collections.abc import Sequence

from mcts.markup.step import PYTHON_INTERPRETER, Step, code_body


def _unwrap_dollars(answer: str) -> str:
    answer = answer.strip()
    if len(answer) >= 2 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer


class SftMarkup:
    """The XML markup of the fine-tuned AlphaMath models."""

    stop: tuple[str, ...] = ()

    def __init__(self, step_delim: str = "\n") -> None:
        self.step_delim = step_delim

    def prompt(self, question: str) -> str:
        return f"<question> {question} </question>\n"

    def read(self, text: str, before: str = "", ended: bool = False) -> Step:
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

    def written(self, text: str) -> int:
        before, tag, _ = text.partition(f"</code>{self.step_delim}<output>\n")
        return len(before) + len("</code>") if tag else len(text)


class ReactMarkup:
    """Thought / Action / Action Input / Observation with worked examples, for models that were never tuned on it."""

    stop: tuple[str, ...] = ()

    def __init__(self, instructions: str, examples: Sequence[str], step_delim: str = "\n\n") -> None:
        self.step_delim = step_delim
        self._head = "\n\n".join([instructions, *examples])

    def prompt(self, question: str) -> str:
        return f"{self._head}\n\nQuestion: {question}\n\n"

    def read(self, text: str, before: str = "", ended: bool = False) -> Step:
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

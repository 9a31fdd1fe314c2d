"""Output-space shaping (ToRA, https://arxiv.org/abs/2309.17452, section 2.3): of many sampled solutions keep the valid
ones, and let a teacher continue the wrong ones from every line that the student wrote.

Valid: the right answer, and no tool error on the way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mcts.config import Config
from mcts.errors import UserError
from mcts.markup import Markup
from mcts.model import Context, Expansion, LanguageModel, Sampling
from mcts.question import Question
from mcts.search.budget import SharedBudget
from mcts.search.driver import Solver
from mcts.search.expansion import Expander, Grader
from mcts.search.search import Search
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node, walk

_TOOL_ERROR = re.compile(r"\w*Error\b|Exception\b|SystemExit|Timeout")


def tool_error(markup: Markup, steps: Sequence[str]) -> bool:
    """Whether any observation among the steps is an error."""
    return any(_TOOL_ERROR.search(step[markup.written(step) :]) for step in steps)


def solutions(where: str, record: Mapping[str, Any]) -> Iterator[Node]:
    """The ends of all solutions in the trees of a record, failed ones too. Raises UserError."""
    for root in read_roots(where, record):
        yield from (node for node in walk(root) if node.terminal and node.parent is not None)


def line_prefixes(markup: Markup, steps: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(complete steps, beginning of the next one) in front of every line that the model wrote but the first.

    A beginning ends without its line break: tokenizers join it with what follows."""
    for place, step in enumerate(steps):
        lines = step[: markup.written(step)].split("\n")
        for count in range(len(lines)):
            if place or count:
                yield place, "\n".join(lines[:count])


@dataclass
class Begun:
    """A model that has already written `text` after `context`; anywhere else it is the model itself."""

    model: LanguageModel
    context: Context
    text: str

    def encode(self, text: str) -> tuple[int, ...]:
        return self.model.encode(text)

    async def evaluate(self, context: Context) -> float:
        return await self.model.evaluate(context)

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        if context is not self.context or not self.text:
            return await self.model.sample(context, n, params)
        ids = self.model.encode(self.text)
        expansion = await self.model.sample(Context(context, ids), n, params)
        shift = len(self.text)
        return replace(
            expansion,
            samples=tuple(
                replace(
                    one,
                    token_ids=ids + one.token_ids,
                    text=self.text + one.text,
                    ends=(shift,) * len(ids)
                    + tuple(end + shift for end in one.ends or (len(one.text),) * len(one.token_ids)),
                    context=None,
                )
                for one in expansion.samples
            ),
        )


@dataclass
class Teacher:
    """Continues solutions that the student has begun, step by step as the solver's configuration says."""

    solver: Solver

    async def finish(self, question: str, leaf: Node, place: int, text: str, key: tuple[int | str, ...]) -> Node | None:
        """The answer that the teacher reaches from the first `place` steps of `leaf` and the text after them."""
        solver = self.solver
        expander = Expander(solver.config, solver.model, solver.markup, solver.interpreter, key)
        node, context = self._root(leaf), expander.prompt(question)
        for step in leaf.path()[:place]:
            node = Node(f"{node.tag}.0", node, node.depth + 1, text=step.text, action=step.action)
            context = Context(context, solver.model.encode(step.text + solver.markup.step_delim))
            if step.action and solver.config.code_state == "carried":
                parent = node.parent
                assert parent is not None
                node.state = (await solver.interpreter.run(parent.state, step.action_input)).state
            elif node.parent is not None:
                node.state = node.parent.state
        node.context = context
        expander.model = Begun(solver.model, context, text)
        search = Search(expander, node)
        await solver.config.method.search(search)
        return search.solutions[0] if search.solutions else None

    @staticmethod
    def _root(leaf: Node) -> Node:
        while leaf.parent is not None:
            leaf = leaf.parent
        return Node(extra_info=leaf.extra_info)


class Limits(BaseModel):
    """keep: valid samples a question; keep_corrected: corrected ones; wrong: wrong samples that the teacher is shown;
    enough: a question with so many valid samples of its own needs no teacher; prefixes: beginnings of a wrong sample
    that are continued, evenly spread (0: all)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    keep: int = Field(4, ge=0)
    keep_corrected: int = Field(4, ge=0)
    wrong: int = Field(4, ge=0)
    enough: int = Field(4, ge=0)
    prefixes: int = Field(0, ge=0)

    def limits(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in Limits.model_fields}


@dataclass
class Shaper:
    """Turns the samples of a question into solutions to learn from."""

    teacher: Teacher
    grader: Grader
    limits: Limits = field(default_factory=Limits)

    async def shape(self, question: Question, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The solutions to learn from: `steps`, and `source` (sampled or corrected); texts are distinct."""
        leaves = {tuple(node.text for node in leaf.path()): leaf for leaf in solutions(question.where, record)}
        valid = {steps: leaf for steps, leaf in leaves.items() if await self._valid(question, steps, leaf)}
        found = [{"source": "sampled", "steps": list(steps)} for steps in list(valid)[: self.limits.keep]]
        wrong = (
            [leaf for steps, leaf in leaves.items() if steps not in valid] if len(valid) < self.limits.enough else []
        )
        corrected: dict[tuple[str, ...], None] = {}
        for number, leaf in enumerate(wrong[: self.limits.wrong]):
            for steps in await self._corrections(question, leaf, number):
                if steps not in leaves:
                    corrected[steps] = None
            if len(corrected) >= self.limits.keep_corrected:
                break
        return found + [
            {"source": "corrected", "steps": list(steps)} for steps in list(corrected)[: self.limits.keep_corrected]
        ]

    async def _valid(self, question: Question, steps: Sequence[str], leaf: Node) -> bool:
        if not leaf.answered or tool_error(self.teacher.solver.markup, steps):
            return False
        return await self.grader(question.answers, leaf.final_answer) is True

    async def _corrections(self, question: Question, leaf: Node, number: int) -> list[tuple[str, ...]]:
        """What the teacher makes right of a wrong solution, from its longest beginning to its shortest."""
        steps = [node.text for node in leaf.path()]
        every = list(line_prefixes(self.teacher.solver.markup, steps))[::-1]
        count = min(self.limits.prefixes or len(every), len(every))
        prefixes = [every[at * len(every) // count] for at in range(count)]
        key = (self.teacher.solver.seed, question.index, "teacher", number)
        ends = await asyncio.gather(
            *(
                self.teacher.finish(question.text, leaf, place, text, (*key, at))
                for at, (place, text) in enumerate(prefixes)
            )
        )
        paths = [(tuple(node.text for node in end.path()), end) for end in ends if end is not None]
        return [texts for texts, end in paths if await self._valid(question, texts, end)]


@dataclass
class Corrector:
    """Stands where a solver stands: the record of a question holds its solutions. samples: question → its trees."""

    shaper: Shaper
    samples: Mapping[int, Mapping[str, Any]]
    meta: Mapping[str, Any]
    config: Config
    shared: SharedBudget | None = None  # a driver's; corrections have no budget to share

    async def solve(self, question: Question) -> dict[str, Any]:
        found = await self.shaper.shape(question, self.samples[question.index])
        meta = {**self.meta, "index": question.index, "seed": self.shaper.teacher.solver.seed}
        return {"question": question.text, "answer": list(question.answers), "solutions": found, "meta": meta}


def read_samples(path: Path, config: Config) -> list[tuple[Question, dict[str, Any]]]:
    """The questions of a tree file with their records. Raises UserError for what cannot be corrected."""
    found = []
    for number, (where, record) in enumerate(read_tree_lines(path)):
        question = Question(number, record, where)
        written = (record.get("meta") or {}).get("config") or {}  # a file of the published system has neither
        wrap = written.get("prompt_wrap", "react") if isinstance(written, dict) else written
        if wrap != config.prompt_wrap:
            raise UserError(f"{where}: written with markup {wrap}, the teacher's is {config.prompt_wrap}; use one")
        if not question.answers:
            raise UserError(f'{where}: "answer" is missing; without it nothing tells a valid solution')
        read_roots(where, record)  # a broken tree is found before any work
        found.append((question, record))
    return found

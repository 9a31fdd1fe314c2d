"""What a search gives, on disk and off it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mcts.config import PathValue, Strategy
from mcts.jsonl import write_lines
from mcts.search.offline import offline_inference, top_answer
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node


@dataclass(frozen=True)
class Cost:
    """What a question cost. Tokens count every run of the question; seconds are wall time."""

    prompt_tokens: int
    """Lengths of all prompts that the engine was asked for, summed."""
    tokens_reused: int
    """Of these: tokens whose key/value entries were still there."""
    tokens_computed: int
    """Positions that went through the network, sampled ones included."""
    tokens_generated: int
    """Sampled tokens."""
    simulations: int
    """Simulations of MCTS."""
    samples: int
    """Steps that were sampled."""
    code_seconds: float
    """Wall time of the model's code."""
    wall_seconds: float
    """From the question to its answer; other questions may have run beside it."""


class Result:
    """A searched question: its answer, its tree and what it cost. It is one line of a tree file.

    record: the line itself (docs/formats.md).
    """

    def __init__(self, record: Mapping[str, Any], where: str = "result") -> None:
        self.record, self.where = record, where

    def __repr__(self) -> str:
        correct = "" if self.correct is None else f", correct={self.correct}"
        return f"Result(answer={self.answer!r}{correct}, question={self.question!r:.60})"

    @property
    def _prediction(self) -> Mapping[str, Any]:
        return self.record.get("prediction") or {}

    @property
    def _meta(self) -> Mapping[str, Any]:
        return self.record.get("meta") or {}

    @property
    def question(self) -> str:
        return str(self.record.get("question", ""))

    @property
    def index(self) -> int:
        """The question's place in its series; -1 where the line does not say it."""
        return int(self._meta.get("index", -1))

    @property
    def answer(self) -> str | None:
        """The answer of the question; None where none was found. Raises TreeError for a broken line."""
        return top_answer(self.record)

    @property
    def correct(self) -> bool | None:
        """Whether the answer is right. None: there is no answer to compare with, or it cannot be decided.
        Where none was found it is False, if one was expected."""
        if not self._prediction and self.record.get("answer") is not None:
            return False
        correct = self._prediction.get("correct")
        return None if correct is None else bool(correct)

    @property
    def no_answer(self) -> str | None:
        """Why there is no answer ("prompt too long", "out of time", "unparsable", ...); None where there is one."""
        return self._meta.get("no_answer")

    @property
    def failures(self) -> Mapping[str, int]:
        """Reason → nodes that failed for it."""
        return self._meta.get("failures") or {}

    @cached_property
    def trees(self) -> list[Node]:
        """The tree of each run. Raises UserError for a broken line."""
        return read_roots(self.where, self.record)

    @property
    def tree(self) -> Node:
        """The root of the (first) tree; `tree.walk()` gives all its nodes."""
        return self.trees[0]

    @property
    def leaf(self) -> Node | None:
        """The node that holds the answer; `leaf.path()` is the solution. None: no answer, or an older file."""
        tag, run = self._prediction.get("tag"), self._prediction.get("run") or 0
        return next((node for node in self.trees[run].walk() if node.tag == tag), None) if tag else None

    @property
    def cost(self) -> Cost:
        """Zero where the line does not say it, as in files of the published system."""
        return Cost(**{name: self._meta.get(name, 0) for name in Cost.__dataclass_fields__})


def save(path: str | Path, results: Iterable[Result]) -> None:
    """Writes results as a tree file, one line each, whole or not at all. Raises UserError where that fails."""
    write_lines(Path(path), (result.record for result in results))


def load(path: str | Path) -> list[Result]:
    """The results of a tree file, one of the published system included. Raises UserError with file and line."""
    return [Result(record, where) for where, record in read_tree_lines(path)]


def decide(
    tree: Node | Result,
    *,
    strategy: Strategy = "q_value",
    beam: int = 1,
    samples: int = 5,
    prune: bool = True,
    c_puct: float = 1.25,
    path_value: PathValue = "last",
) -> Node | None:
    """Decides again on a finished tree: the leaf whose answer is picked, None where the walk meets no answer.

    strategy: what nodes are ranked by ("value", "q_value", "visit_count", "puct"). beam: nodes that stay at each depth.
    samples: children beyond `beam` · `samples` are not seen. prune: branches without an answer are cut first.
    c_puct: for strategy "puct". path_value: for strategy "value", see `StepBeam`.
    """
    root = tree.tree if isinstance(tree, Result) else tree
    answers = offline_inference(
        root, strategy=strategy, beam_width=beam, samples=samples, prune=prune, c_puct=c_puct, path_value=path_value
    )
    return answers[0] if answers else None

"""Simulations a second with code, against the published schedule: all questions in lock step.

python -m scripts.bench.lockstep [--json FILE]

The same scripted model without latency, 32 questions, five children, at most 40 simulations; ours runs the code in its
sandbox, the rival (`scripts/bench/published.py`) without any. Both search the same trees, which is checked.

The rival stops when its time is up. Its rate falls as trees grow, so the simulations that it did not reach would have
been slower than those that count: the comparison flatters it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mcts.interpreter import ForkInterpreter
from mcts.markup import make_markup
from mcts.question import Question
from mcts.search.driver import solve_all
from mcts.trees.node import Node, walk
from scripts.bench import common, scripted
from scripts.bench.common import Claim
from scripts.bench.published import LockStep, Pool, Samples, pool

QUESTIONS, SIMULATIONS, SAMPLES, C_PUCT = 32, 40, 5, 1.25
RIVAL_SECONDS = 60.0
TEXTS = [f"What is {i} + {i * i}?" for i in range(QUESTIONS)]


class Batches:
    """The scripted model, called for all prompts at once."""

    def __init__(self, snippet: str) -> None:
        self._model = scripted.Scripted(snippet)

    def steps(self, prompts: Sequence[str], n: int) -> list[Samples]:
        return [[self._model.step(prompt, i) for i in range(n)] for prompt in prompts]

    def values(self, prompts: Sequence[str]) -> list[float]:
        return [self._model.value(prompt) for prompt in prompts]


async def ours(model: scripted.Scripted, simulations: int) -> tuple[list[dict[str, Any]], float]:
    """Our trees of as many simulations, and the seconds, the interpreter's start left out (it serves a whole run)."""
    questions = [Question(i, {"question": text}, "") for i, text in enumerate(TEXTS)]
    trees: dict[int, Any] = {}
    async with ForkInterpreter(max_states=QUESTIONS * SIMULATIONS * SAMPLES) as interpreter:
        solver = scripted.solver(model, interpreter, iterations=simulations, descend=False)
        started = time.perf_counter()
        async for question, record in solve_all(solver, questions, QUESTIONS):
            trees[question.index] = record["react"]
        seconds = time.perf_counter() - started
    return [trees[i] for i in range(QUESTIONS)], seconds


def differing(theirs: list[Node], trees: list[dict[str, Any]]) -> Iterator[str]:
    for root, tree in zip(theirs, trees, strict=True):
        for node in walk(root):
            if (node.text, node.visit_count) != (tree[node.tag]["text"], tree[node.tag]["visit_count"]):
                yield node.tag


def compare(name: str, run: Pool, kind: str, snippet: str, bar: float) -> Claim:
    rival = LockStep(Batches(snippet), make_markup("react_sft", "\n"), TEXTS, run)
    rival.monte_carlo(SIMULATIONS, SAMPLES, C_PUCT, RIVAL_SECONDS)
    trees, seconds = asyncio.run(ours(scripted.Scripted(snippet), rival.rounds))
    assert not list(differing(rival.roots, trees)), "the two schedules searched different trees"
    claim = f"simulations a second, {kind}, 32 questions × {rival.rounds} × 5, against lock step over {name}"
    done = QUESTIONS * rival.rounds
    return common.at_least(claim, done / seconds, done / rival.seconds, bar, "1/s")


def measure() -> list[Claim]:
    import sympy  # noqa: F401  # warm for the rival's workers, as it is for ours

    name, run = pool()
    kinds = {"trivial snippets": (scripted.ARITHMETIC, 1.0), "snippets of sympy": (scripted.SYMPY, 10.0)}
    return [compare(name, run, kind, *snippet) for kind, snippet in kinds.items()]


if __name__ == "__main__":
    common.main(__doc__, measure)

"""Simulations a second with code, against the published schedule: all questions in lock step.

python -m scripts.bench.lockstep [--json FILE]

The same scripted model without latency, 32 questions, five children, at most 40 simulations; ours runs the code in its
sandbox, the rival without any. The rival's schedule, after the published description: each simulation one prompt a
question is collected, the model is called for all, then a process pool is made for this simulation, every tree is
pickled into it and back, and a worker runs the new steps, every earlier snippet of the path again before each. Then
the model is called for the values, and the backups are done. Both search the same trees, which is checked.

The rival stops when its time is up. Its rate falls as trees grow, so the simulations that it did not reach would have
been slower than those that count: the comparison flatters it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from mcts.interpreter import ForkInterpreter
from mcts.interpreter.observation import Capture, observe
from mcts.markup import make_markup
from mcts.question import Question
from mcts.search.driver import solve_all
from mcts.search.rules import backup, select
from mcts.trees.node import Node, solution_text, walk
from scripts.bench import common, scripted
from scripts.bench.common import Claim

QUESTIONS, SIMULATIONS, SAMPLES, C_PUCT = 32, 40, 5, 1.25
RIVAL_SECONDS = 60.0
MARKUP = make_markup("react_sft", "\n")
TEXTS = [f"What is {i} + {i * i}?" for i in range(QUESTIONS)]


def run_code(node: Node, code: str) -> str:
    """What `code` prints after every earlier snippet of its path has run again, in this process."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    capture = Capture()
    standard_output, sys.stdout = sys.stdout, io.TextIOWrapper(io.BufferedWriter(capture))
    try:
        for earlier in node.path():
            observe(earlier.action_input, namespace, capture, "alphamath")
        return observe(code, namespace, capture, "alphamath")[0]
    finally:
        sys.stdout = standard_output


def grow(work: tuple[Node, str, list[tuple[str, float]]]) -> Node:
    """A worker's part: the tree comes in, the leaf `tag` gets its children, their code runs, the tree goes back."""
    root, tag, samples = work
    leaf = next(node for node in walk(root) if node.tag == tag)
    for index, (text, logprob) in enumerate(samples):
        step = MARKUP.read(text)
        child = Node(f"{tag}.{index}", leaf, leaf.depth + 1, step.text, prior=math.exp(logprob))
        if step.code:
            child.action_input = step.code
            child.text = MARKUP.observed(step, run_code(leaf, step.code))
        else:
            child.final_answer, child.terminal = step.final_answer, True
        leaf.children.append(child)
    return root


def prompt_of(question: str, node: Node) -> str:
    steps = solution_text(node, "\n")
    prompt = MARKUP.prompt(question)
    assert isinstance(prompt, str)
    return prompt + (steps + "\n" if steps else "")


def pebble_pool(work: list[Any]) -> Iterable[Node]:
    import pebble

    with pebble.ProcessPool(len(os.sched_getaffinity(0)), context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(grow, work, timeout=1000).result())


def standard_pool(work: list[Any]) -> Iterable[Node]:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        return list(pool.map(grow, work))


def lock_step(pool: Any, model: scripted.Scripted, seconds: float) -> tuple[list[Node], int, float]:
    """The trees, how many simulations each had, and the seconds it took."""
    roots = [Node() for _ in TEXTS]
    started, done = time.perf_counter(), 0
    while done < SIMULATIONS and time.perf_counter() - started < seconds:
        leaves = [select(root, C_PUCT) for root in roots]
        prompts = [prompt_of(text, leaf) for text, leaf in zip(TEXTS, leaves, strict=True) if leaf is not None]
        samples = [[model.step(prompt, i) for i in range(SAMPLES)] for prompt in prompts]
        tags = [leaf.tag for leaf in leaves if leaf is not None]
        roots = list(pool(list(zip(roots, tags, samples, strict=True))))
        for text, root, tag, prompt in zip(TEXTS, roots, tags, prompts, strict=True):
            back_up(text, next(node for node in walk(root) if node.tag == tag), model.value(prompt))
        done += 1
    return roots, done, time.perf_counter() - started


def back_up(question: str, leaf: Node, value: float) -> None:
    leaf.value = value
    backup(leaf, value)
    for child in leaf.children:
        if child.answered:
            child.value = scripted.Scripted.value(prompt_of(question, child))
            backup(child, child.value)
            child.close()


async def ours(model: scripted.Scripted, simulations: int) -> tuple[list[dict[str, Any]], float]:
    """Our trees of as many simulations, and the seconds, the interpreter's start left out (it serves a whole run)."""
    questions = [Question(i, {"question": text}, "") for i, text in enumerate(TEXTS)]
    trees: dict[int, Any] = {}
    async with ForkInterpreter(max_states=QUESTIONS * SIMULATIONS * SAMPLES) as interpreter:
        solver = scripted.solver(model, interpreter, iterations=simulations)
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


def compare(name: str, pool: Any, kind: str, snippet: str, bar: float) -> Claim:
    roots, done, seconds = lock_step(pool, scripted.Scripted(snippet), RIVAL_SECONDS)
    trees, own_seconds = asyncio.run(ours(scripted.Scripted(snippet), done))
    assert not list(differing(roots, trees)), "the two schedules searched different trees"
    claim = f"simulations a second, {kind}, 32 questions × {done} × 5, against lock step over {name}"
    return common.at_least(claim, QUESTIONS * done / own_seconds, QUESTIONS * done / seconds, bar, "1/s")


def measure() -> list[Claim]:
    import sympy  # noqa: F401  # warm for the rival's workers, as it is for ours

    try:
        import pebble  # noqa: F401

        name, pool = "pebble's process pools", pebble_pool
    except ImportError:
        print("pebble, whose pools the published system makes, is not installed (pip install pebble)")
        name, pool = "the standard library's process pools", standard_pool
    kinds = {"trivial snippets": (scripted.ARITHMETIC, 1.0), "snippets of sympy": (scripted.SYMPY, 10.0)}
    return [compare(name, pool, kind, *snippet) for kind, snippet in kinds.items()]


if __name__ == "__main__":
    common.main(__doc__, measure)

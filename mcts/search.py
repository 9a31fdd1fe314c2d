"""The searches of one question: linear (greedy or sampled), step-level beam, MCTS.

Each is a coroutine over an `Expander`; it returns when its budget or its tree is exhausted. MCTS and step beam
follow AlphaMath (https://arxiv.org/abs/2405.03553, sections 3 and 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mcts.expansion import Expander, Grader
from mcts.model import ContextTooLong
from mcts.offline import offline_inference
from mcts.rules import backup, select
from mcts.tree import Node


@dataclass
class Search:
    """A search in progress. The driver may stop it at any await; what stands in `root` by then is kept.

    solutions: the answered leaves in the order of preference, best first.
    answers, grader: the accepted answers and the judge, for training (`is_sampling`).
    """

    expander: Expander
    root: Node
    answers: Sequence[str] = ()
    grader: Grader | None = None
    solutions: list[Node] = field(default_factory=list)


async def linear(search: Search) -> None:
    """One chain of steps ("react" mode): greedy at temperature 0, a sampled solution above."""
    expander, node = search.expander, search.root
    while not node.terminal:
        try:
            await expander.expand(node, 1)
        except ContextTooLong:
            node.terminal = True
            return
        node.release()
        node = node.children[0]
    if node.answered:
        search.solutions = [node]


async def step_beam(search: Search) -> None:
    """Step-level beam search: B1 (`step_beam_width`) nodes are kept, B2 (`n_generate_sample`) steps sampled of each.

    A kept answer leaves the beam and narrows it by one. A failed step is never kept, so it costs only itself.
    """
    expander = search.expander
    config = expander.config
    beam, width = [search.root], config.step_beam_width
    for depth in range(config.max_depth):
        samples = config.n_generate_sample * (config.step_beam_width if depth == 0 else 1)
        alive = await _expand_all(expander, beam, samples)
        candidates = [child for child in alive if not child.failed]
        if config.need_value_func:
            await expander.evaluate(candidates)
            candidates = [child for child in candidates if not child.failed]
        kept = sorted(candidates, key=lambda child: child.value, reverse=True)[:width]
        _release_dropped(beam, alive, kept)
        answered = [child for child in kept if child.answered]
        search.solutions = sorted([*search.solutions, *answered], key=lambda child: child.value, reverse=True)
        width -= len(answered)
        beam = [child for child in kept if not child.answered]
        if not beam:
            return


def _release_dropped(beam: list[Node], children: list[Node], kept: list[Node]) -> None:
    chosen = {id(child) for child in kept if not child.answered}
    for node in beam + [child for child in children if id(child) not in chosen]:
        node.release()


async def _expand_all(expander: Expander, beam: list[Node], samples: int) -> list[Node]:
    """The new children of all nodes of the beam, in order. A node whose prompt is too long becomes terminal."""

    async def expand(node: Node) -> None:
        try:
            await expander.expand(node, samples)
        except ContextTooLong:
            node.terminal = True

    await asyncio.gather(*(expand(node) for node in beam))
    return [child for node in beam for child in node.children]


async def monte_carlo(search: Search) -> None:
    """MCTS: `iterations` simulations of selection, expansion and backup, or until no open leaf is left."""
    expander, config = search.expander, search.expander.config
    try:
        for _ in range(config.iterations):
            leaf = select(search.root, config.c_puct, config.first_play_urgency)
            if leaf is None:
                return
            await _simulate(search, leaf)
            expander.counts.simulations += 1
    finally:  # a search that runs out of time has its answer all the same
        search.solutions = offline_inference(
            search.root,
            strategy=config.mcts_infer_strategy,
            beam_width=config.step_beam_width,
            samples=config.n_generate_sample,
            c_puct=config.c_puct,
        )


async def _simulate(search: Search, leaf: Node) -> None:
    """Expands `leaf` and backs up, in the published order: failures and rewards of the new children by index, then
    the leaf's own estimate, then (inference) the estimates of the new answers by index."""
    expander, config = search.expander, search.expander.config
    try:
        value = await expander.expand(leaf, config.n_generate_sample)
    except ContextTooLong:
        leaf.terminal = True
        backup(leaf, config.negative_reward)
        leaf.close()
        return
    for child in leaf.children:
        await _reward(search, child)
    if config.update_leaf_value:
        to_evaluate = [child for child in leaf.children if child.visit_count == 0 and child.context is not None]
    else:
        leaf.value = 0.0 if value is None else value
        backup(leaf, leaf.value)
        to_evaluate = [] if config.is_sampling else [child for child in leaf.children if child.answered]
    if config.need_value_func:
        await expander.evaluate(to_evaluate)
    for child in to_evaluate:
        backup(child, child.value if config.need_value_func else 0.0)
    for child in leaf.children:
        if child.terminal:
            child.close()


async def _reward(search: Search, child: Node) -> None:
    """Backs up what is known of a new child without the value head: a failure, or a graded answer in training.
    An answer that cannot be decided gets no reward: it never counts as wrong."""
    config = search.expander.config
    if child.failed:
        child.reward = config.negative_reward
    elif child.answered and config.is_sampling and search.grader is not None:
        right = await search.grader(search.answers, child.final_answer)
        child.reward = None if right is None else config.positive_reward if right else config.negative_reward
    if child.reward is not None:
        backup(child, child.reward)


SEARCHES: dict[str, Callable[[Search], Awaitable[None]]] = {"react": linear, "sbs": step_beam, "mcts": monte_carlo}

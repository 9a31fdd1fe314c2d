"""MCTS with a value head (AlphaMath, https://arxiv.org/abs/2405.03553, section 3).

What the published search does not have: several leaves in flight, early decisions, a way around exhausted branches,
and a descent where the budget found no answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass

from mcts.config import Config
from mcts.model import ContextTooLong
from mcts.search.methods import Method
from mcts.search.offline import decided_by
from mcts.search.rules import backup, note_in_flight, path_value, select
from mcts.search.search import Search
from mcts.trees.node import NOT_EVALUATED, TOO_LONG, Node


@dataclass(eq=False)
class Simulation:
    """One simulation between its selection and its backups: what is known of its leaf so far.

    children: None until they are sampled, read and run. too_long: the leaf leaves no room in the model's window.
    work: what computes the rest.
    """

    leaf: Node
    value: float | None = None
    children: list[Node] | None = None
    too_long: bool = False
    work: Awaitable[None] | None = None


async def monte_carlo(search: Search) -> None:
    """MCTS: `iterations` simulations of selection, expansion and backup, or until no open leaf is left.

    `leaves_in_flight` simulations (k) are computed at a time, in a window: simulation i + k is selected once i has been
    backed up, and backups go in the order of selection. So the tree is a function of the seed, whatever comes back
    first. The price: what later simulations found waits for an earlier one that is slow, and near the root, where
    there are fewer than k leaves, fewer are in flight. Selection passes over leaves in flight, so none is expanded
    twice, and reaches for leaves that one simulation at a time might have left alone.

    May be called again with a larger `search.budget`.
    """
    try:
        await _simulate_all(search)
    finally:  # a search that runs out of time has its answer all the same
        search.solutions = decided_by(search.expander.config, search.root)


async def _simulate_all(search: Search) -> None:
    config, counts = search.expander.config, search.expander.counts
    window: deque[Simulation] = deque()
    try:
        while True:
            while len(window) < min(config.leaves_in_flight, search.budget - counts.simulations):
                leaf = None if search.stopped else select(
                    search.root, config.c_puct, config.first_play_urgency, config.in_flight_loss
                )  # fmt: skip
                if leaf is None:
                    break
                window.append(_start(search, leaf))
            if not window:
                return
            assert window[0].work is not None
            await window[0].work
            _complete(search, window.popleft())
            counts.simulations += 1
            if search.early is not None:
                remaining = search.budget - counts.simulations
                search.stopped = search.stopped or search.early.reason(search.root, remaining)
    finally:
        await _abandon(search, window)


def _start(search: Search, leaf: Node) -> Simulation:
    """Begins to compute a leaf. One at a time is computed in place, which saves the host time of a task."""
    simulation = Simulation(leaf)
    simulation.work = _compute(search, simulation)
    if search.expander.config.leaves_in_flight > 1:
        note_in_flight(leaf, search.expander.config.backups_due)
        simulation.work = asyncio.create_task(simulation.work)
    return simulation


async def _compute(search: Search, simulation: Simulation) -> None:
    """Everything about a leaf that has to be awaited. The tree does not change meanwhile."""
    expander, config = search.expander, search.expander.config
    try:
        simulation.value, children = await expander.grow(simulation.leaf, config.n_generate_sample)
    except ContextTooLong:
        simulation.too_long = True
        return
    for child in children:
        child.reward = await _reward(search, child)
    simulation.children = children
    if config.need_value_func:
        await expander.evaluate(_to_value(config, children))


async def descend(search: Search) -> None:
    """Where the budget found no answer: a step beam (B1, B2) through the tree as it stands, and on from its leaves.

    Level by level the B1 best open children stay, by their Q, or by the value head's estimate where they were never
    visited; one that has no children yet is expanded as in a simulation. It ends with the first level that keeps an
    answer, and costs at most the B1 · `max_depth` expansions of a whole step beam. Long solutions need it: with
    B2 samples an expansion, a budget of simulations seldom reaches below a depth of five.
    """
    config, counts = search.expander.config, search.expander.counts
    if search.solutions or not config.descend:
        return
    allowed = config.step_beam_width * config.max_depth
    level = [search.root]
    try:
        while level and not any(node.answered for node in level):
            leaves = [node for node in level if not node.children and not node.closed][: allowed - counts.descent]
            await _expand_at_once(search, leaves)
            counts.descent += len(leaves)
            level = await _best_children(search, level)
            if not level and leaves and not search.root.closed:
                level = [search.root]  # every one of them failed: around them
    finally:
        search.solutions = decided_by(search.expander.config, search.root)


async def _expand_at_once(search: Search, leaves: list[Node]) -> None:
    simulations = [_start(search, leaf) for leaf in leaves]
    await asyncio.gather(*(simulation.work for simulation in simulations if simulation.work is not None))
    for simulation in simulations:
        _complete(search, simulation)


async def _best_children(search: Search, level: list[Node]) -> list[Node]:
    """The B1 best of the children that are answers or can still be built upon."""
    config = search.expander.config
    children = [child for node in level for child in node.children if child.answered or not child.closed]
    if config.need_value_func:
        await search.expander.evaluate([one for one in children if one.value == NOT_EVALUATED and one.context])
    children = [child for child in children if not child.failed]

    def preference(child: Node) -> tuple[float, float]:
        return child.q_value if child.visit_count else path_value(child, config.path_value), child.prior

    return sorted(children, key=preference, reverse=True)[: config.step_beam_width]


async def _reward(search: Search, child: Node) -> float | None:
    """What is known of a new child without the value head: a failure, or a graded answer in training.
    An answer that cannot be decided gets no reward: it never counts as wrong."""
    config = search.expander.config
    if child.failed:
        return config.negative_reward
    if child.answered and config.is_sampling and search.grader is not None:
        right = await search.grader(search.answers, child.final_answer)
        return None if right is None else config.positive_reward if right else config.negative_reward
    return None


def _to_value(config: Config, children: list[Node]) -> list[Node]:
    """The new children whose own estimates are backed up."""
    if config.update_leaf_value:
        return [child for child in children if child.reward is None and child.context is not None]
    return [] if config.is_sampling else [child for child in children if child.answered]


def _complete(search: Search, simulation: Simulation) -> None:
    """Puts what was computed into the tree and backs it up, in the published order: failures and rewards of the new
    children by index, then the leaf's own estimate, then (inference) the estimates of the new answers by index."""
    config, leaf, children = search.expander.config, simulation.leaf, simulation.children
    if children is not None:
        _back_up(search, simulation, children)
    elif simulation.too_long:
        leaf.end(TOO_LONG)
        backup(leaf, config.negative_reward)
        leaf.close()
    if config.leaves_in_flight > 1:
        note_in_flight(leaf, -config.backups_due)
    if search.early is not None:
        search.early.observe(leaf)


def _back_up(search: Search, simulation: Simulation, children: list[Node]) -> None:
    config, leaf = search.expander.config, simulation.leaf
    to_value = _to_value(config, children)  # before `reward` makes any of them visited
    search.expander.attach(leaf, children)
    for child in children:
        if child.reward is not None:
            backup(child, child.reward)
    if not config.update_leaf_value:
        leaf.value = 0.0 if simulation.value is None else simulation.value
        backup(leaf, 0.0 if simulation.value is None else path_value(leaf, config.path_value))
    for child in to_value:
        if not config.need_value_func:
            backup(child, 0.0)
        elif child.value != NOT_EVALUATED:  # of a search that was stopped meanwhile it may be
            backup(child, child.value if child.failed else path_value(child, config.path_value))
    leaf.release()  # it is expanded once; its children hold what they build upon
    for child in children:
        if child.terminal or leaf.closed:  # the branch may have been given up meanwhile
            child.close()


async def _abandon(search: Search, window: deque[Simulation]) -> None:
    """What a search that is stopped has in flight: children that are there stay, in the order of selection."""
    tasks = [simulation.work for simulation in window if isinstance(simulation.work, asyncio.Task)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for simulation in window:
        _complete(search, simulation)


MONTE_CARLO = Method(
    monte_carlo,
    "MCTS",
    conclude=descend,
    statistics=True,
    simulates=True,
    expands_by_value=True,
    judged_by_value=True,
)

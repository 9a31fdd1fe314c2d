"""The searches of one question: linear (greedy or sampled), step-level beam, MCTS.

Each is a coroutine over an `Expander`; it returns when its budget or its tree is exhausted. MCTS and step beam
follow AlphaMath (https://arxiv.org/abs/2405.03553, sections 3 and 4).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mcts.config import Config
from mcts.model import ContextTooLong
from mcts.search.early import Early
from mcts.search.expansion import Expander, Grader
from mcts.search.offline import offline_inference
from mcts.search.rules import backup, note_in_flight, select
from mcts.trees.node import NOT_EVALUATED, Node


@dataclass
class Search:
    """A search in progress. The driver may stop it at any await; what stands in `root` by then is kept.

    solutions: the answered leaves in the order of preference, best first.
    answers, grader: the accepted answers and the judge, for training (`is_sampling`).
    budget: simulations of MCTS. early: decisions before it is spent; stopped: why there was one.
    """

    expander: Expander
    root: Node
    answers: Sequence[str] = ()
    grader: Grader | None = None
    solutions: list[Node] = field(default_factory=list)
    budget: int = 0
    early: Early | None = None
    stopped: str | None = None

    def __post_init__(self) -> None:
        config = self.expander.config
        self.budget = self.budget or config.iterations
        if config.decides_early:
            self.early = Early(config)


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
    config = search.expander.config
    try:
        await _simulate_all(search)
    finally:  # a search that runs out of time has its answer all the same
        search.solutions = offline_inference(
            search.root,
            strategy=config.mcts_infer_strategy,
            beam_width=config.step_beam_width,
            samples=config.n_generate_sample,
            c_puct=config.c_puct,
        )


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
            _land(search, window.popleft())
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


def _land(search: Search, simulation: Simulation) -> None:
    """Puts what was computed into the tree and backs it up, in the published order: failures and rewards of the new
    children by index, then the leaf's own estimate, then (inference) the estimates of the new answers by index."""
    config, leaf, children = search.expander.config, simulation.leaf, simulation.children
    if children is not None:
        _back_up(search, simulation, children)
    elif simulation.too_long:
        leaf.terminal = True
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
        backup(leaf, leaf.value)
    for child in to_value:
        if not config.need_value_func:
            backup(child, 0.0)
        elif child.value != NOT_EVALUATED:  # of a search that was stopped meanwhile it may be
            backup(child, child.value)
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
        _land(search, simulation)


SEARCHES: dict[str, Callable[[Search], Awaitable[None]]] = {"react": linear, "sbs": step_beam, "mcts": monte_carlo}

"""Step-level beam search (AlphaMath, https://arxiv.org/abs/2405.03553, section 4)."""

from __future__ import annotations

import asyncio

from mcts.model import ContextTooLong
from mcts.search.expansion import Expander
from mcts.search.methods import Method
from mcts.search.rules import path_value
from mcts.search.search import Search
from mcts.trees.node import TOO_LONG, Node


async def step_beam(search: Search) -> None:
    """Step-level beam search: B1 (`step_beam_width`) nodes are kept, B2 (`n_generate_sample`) steps sampled of each.

    A kept answer leaves the beam and narrows it by one. A failed step is never kept, so it costs only itself. Nodes are
    ranked by what their paths are worth (`path_value`), then by their own values.
    """
    expander = search.expander
    config = expander.config

    def preference(node: Node) -> tuple[float, float]:
        return path_value(node, config.path_value), node.value

    beam, width = [search.root], config.step_beam_width
    for depth in range(config.max_depth):
        samples = config.n_generate_sample * (config.step_beam_width if depth == 0 else 1)
        alive = await _expand_all(expander, beam, samples)
        candidates = [child for child in alive if not child.failed]
        if config.need_value_func:
            await expander.evaluate(candidates)
            candidates = [child for child in candidates if not child.failed]
        kept = sorted(candidates, key=preference, reverse=True)[:width]
        _release_dropped(beam, alive, kept)
        answered = [child for child in kept if child.answered]
        search.solutions = sorted([*search.solutions, *answered], key=preference, reverse=True)
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
            node.end(TOO_LONG)

    await asyncio.gather(*(expand(node) for node in beam))
    return [child for node in beam for child in node.children]


STEP_BEAM = Method(step_beam, "step-level beam search", lists_solutions=True)

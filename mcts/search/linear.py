"""One chain of steps: greedy at temperature 0, a sampled solution above."""

from __future__ import annotations

from mcts.model import ContextTooLong
from mcts.search.methods import Method
from mcts.search.search import Search
from mcts.trees.node import TOO_LONG


async def linear(search: Search) -> None:
    """One chain of steps ("react" mode): greedy at temperature 0, a sampled solution above."""
    expander, node = search.expander, search.root
    while not node.terminal:
        try:
            await expander.expand(node, 1)
        except ContextTooLong:
            node.end(TOO_LONG)
            return
        node.release()
        node = node.children[0]
    if node.answered:
        search.solutions = [node]


LINEAR = Method(linear, "chain of steps")

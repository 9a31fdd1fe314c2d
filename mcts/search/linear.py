"""One chain of steps: greedy at temperature 0, a sampled solution above."""

from __future__ import annotations

from mcts.model import ContextTooLong
from mcts.search.methods import Method
from mcts.search.search import Search
from mcts.trees.node import TOO_LONG


async def linear(search: Search) -> None:
    """One chain of steps ("react" mode): greedy at temperature 0, a sampled solution above. With `need_value_func` each
    step has its head's value, which comes with the sampling of the next one; a last step that failed has none, and with
    `value_from: majority` the answer alone has one."""
    expander, node = search.expander, search.root
    valued = expander.config.need_value_func
    while not node.terminal:
        try:
            value = await expander.expand(node, 1)
        except ContextTooLong:
            node.end(TOO_LONG)
            return
        if valued and value is not None:
            node.value = value
        node.release()
        node = node.children[0]
    if node.answered:
        search.solutions = [node]  # it counts, even if there is no time left for its value
        if valued:
            await expander.evaluate([node])


LINEAR = Method(linear, "chain of steps")

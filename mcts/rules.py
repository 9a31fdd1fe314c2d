"""The rules of the search as plain functions: PUCT, backup, and the scores that offline decisions rank by."""

from __future__ import annotations

import math
from collections.abc import Callable

from mcts.tree import NOT_EVALUATED, Node


def puct(node: Node, c_puct: float, first_play_urgency: float = 0.0) -> float:
    """Q + c_puct · prior · √N(parent) / (1 + N), with `first_play_urgency` as the Q of an unvisited node."""
    assert node.parent is not None
    visits = node.visit_count
    q_value = node.value_sum / visits if visits else first_play_urgency
    return q_value + c_puct * node.prior * math.sqrt(node.parent.visit_count) / (1 + visits)


def backup(node: Node, value: float) -> None:
    """Adds `value` to every node from `node` to the root. A node without an estimate of its own takes the first."""
    current: Node | None = node
    while current is not None:
        current.visit_count += 1
        current.value_sum += value
        if current.value == NOT_EVALUATED:
            current.value = value
        current = current.parent


def select(root: Node, c_puct: float, first_play_urgency: float = 0.0) -> Node | None:
    """The leaf that PUCT leads to, past everything that is exhausted; None when the whole tree is."""
    if root.closed:
        return None
    node = root
    while node.children:
        best, highest = None, -math.inf
        for child in node.children:
            if not child.closed and ((score := puct(child, c_puct, first_play_urgency)) > highest or best is None):
                best, highest = child, score
        assert best is not None  # an open node has an open child
        node = best
    return node


STRATEGIES: dict[str, Callable[[Node, float], float]] = {
    "value": lambda node, c_puct: node.value,
    "q_value": lambda node, c_puct: node.q_value,
    "visit_count": lambda node, c_puct: node.visit_count,
    "puct": puct,
}
"""Strategy name → score of a node, given c_puct."""

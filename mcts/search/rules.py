"""The rules of the search as plain functions: PUCT, backup, what a path is worth, the scores that decisions rank by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mcts.trees.node import NOT_EVALUATED, Node


def puct(node: Node, c_puct: float, first_play_urgency: float = 0.0, loss: float | None = None) -> float:
    """Q + c_puct · prior · √N(parent) / (1 + N), with `first_play_urgency` as the Q of an unvisited node.

    Backups that simulations in flight still owe (U = `unobserved`) count as visits in both N. Q leaves them out
    (loss None: WU-UCT, Liu et al., https://arxiv.org/abs/1810.11755), or counts each as `loss` until the true value
    arrives (virtual loss, Chaslot et al. 2008: Parallel Monte-Carlo Tree Search).
    """
    assert node.parent is not None
    observed, unobserved = node.visit_count, node.unobserved
    visits = observed + unobserved
    if loss is not None and unobserved:
        q_value = (node.value_sum + unobserved * loss) / visits
    else:
        q_value = node.value_sum / observed if observed else first_play_urgency
    return q_value + c_puct * node.prior * math.sqrt(node.parent.visit_count + node.parent.unobserved) / (1 + visits)


def backup(node: Node, value: float) -> None:
    """Adds `value` to every node from `node` to the root. A node without an estimate of its own takes the first."""
    current: Node | None = node
    while current is not None:
        current.visit_count += 1
        current.value_sum += value
        if current.value == NOT_EVALUATED:
            current.value = value
        current = current.parent


def note_in_flight(leaf: Node, due: int) -> None:
    """Notes from `leaf` to the root that a simulation owes it `due` backups; with -`due` that they are in the tree.
    With 0 only `busy` is brought up to date."""
    node: Node | None = leaf
    while node is not None:
        node.unobserved += due
        if node.children:
            node.busy = all(child.closed or child.busy for child in node.children)
        else:
            node.busy = node.unobserved > 0
        node = node.parent


def select(root: Node, c_puct: float, first_play_urgency: float = 0.0, loss: float | None = None) -> Node | None:
    """The leaf that PUCT leads to, past everything that is exhausted or in flight; None when the whole tree is."""
    if root.closed or root.busy:
        return None
    node = root
    while node.children:
        best, highest = None, -math.inf
        for child in node.children:
            if not (child.closed or child.busy):
                score = puct(child, c_puct, first_play_urgency, loss)
                if score > highest or best is None:
                    best, highest = child, score
        assert best is not None  # a node that is open and not busy has such a child
        node = best
    return node


PATH_VALUES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "min": min,
    "mean": lambda values: sum(values) / len(values),
    "product": lambda values: 2 * math.prod(max(0.0, (1 + value) / 2) for value in values) - 1,
}
"""Rule name → what a path is worth, given the values of its steps from the first one on.

A value head may see an error in the step that makes it and no longer a few steps later; then the last value is not
enough. The least value and the product (of the values as probabilities) are how process reward models score whole
solutions (Lightman et al., https://arxiv.org/abs/2305.20050; Wang et al., https://arxiv.org/abs/2312.08935).
"""


def path_value(node: Node, rule: str) -> float:
    """What the values of the steps down to `node` say of it together, by a rule of PATH_VALUES; NOT_EVALUATED where it
    has none itself. The root's does not count, nor does a step without a value."""
    if rule == "last" or node.value == NOT_EVALUATED or node.parent is None:
        return node.value
    return PATH_VALUES[rule]([step.value for step in node.path() if step.value != NOT_EVALUATED])


STRATEGIES: dict[str, Callable[[Node, float, str], float]] = {
    "value": lambda node, c_puct, rule: path_value(node, rule),
    "q_value": lambda node, c_puct, rule: node.q_value,
    "visit_count": lambda node, c_puct, rule: node.visit_count,
    "puct": lambda node, c_puct, rule: puct(node, c_puct),
}
"""Strategy name → score of a node, given c_puct and a rule of PATH_VALUES."""

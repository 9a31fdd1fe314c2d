"""Which steps of a tree are decided while it still grows."""

from __future__ import annotations

from mcts.trees.node import Node


class Decided:
    """Follows one tree. A step is decided when every node that can still become the answer (it holds one, or is a leaf
    that may be expanded) lies at or below it. A chain decides each step at once, a beam when its nodes have a common
    ancestor, MCTS mostly at its end.
    """

    def __init__(self) -> None:
        self._last: Node | None = None

    def see(self, node: Node) -> list[Node]:
        """node: a new one. Returns the steps that are decided now and were not before, from the root down."""
        if self._last is None:
            self._last = node
            while self._last.parent is not None:
                self._last = self._last.parent
        steps: list[Node] = []
        while not self._last.answered:
            living = [child for child in self._last.children if _lives(child)][:2]
            if len(living) != 1:
                break
            self._last = living[0]
            steps.append(self._last)
        return steps


def _lives(node: Node) -> bool:
    """Whether the answer can still be at or below a node."""
    stack = [node]
    while stack:
        one = stack.pop()
        if one.answered or (not one.children and not one.terminal and one.context is not None):
            return True
        stack += one.children
    return False

"""How well values rank siblings: pairs of children of one node whose known outcomes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from mcts.trees.node import Node, walk

KINDS = ("final answers", "inner steps")


def truths(root: Node) -> dict[str, float]:
    """Tag → mean outcome of the graded leaves below, where there are any."""
    sums: dict[str, tuple[float, int]] = {}
    for node in reversed(list(walk(root))):
        own = [sums[child.tag] for child in node.children if child.tag in sums]
        if node.reward is not None and not node.failed:
            own.append((1.0 if node.reward > 0 else -1.0, 1))
        if own:
            sums[node.tag] = sum(total for total, _ in own), sum(count for _, count in own)
    return {tag: total / count for tag, (total, count) in sums.items()}


def auc(ranks: Sequence[float]) -> dict[str, float | int | None]:
    """The share of pairs that values rank right, None without a pair, and how many pairs there are."""
    return {"auc": sum(ranks) / len(ranks) if ranks else None, "pairs": len(ranks)}


def pairs(root: Node, values: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """(kind, 1 where the better sibling has the higher value, 0 where it has the lower, ½ for a tie)."""
    known = truths(root)
    for node in walk(root):
        children = [child for child in node.children if child.tag in known and child.tag in values]
        for first, second in combinations(children, 2):
            truth = known[first.tag] - known[second.tag]
            if truth:
                found = (values[first.tag] - values[second.tag]) * truth
                kind = KINDS[not (first.answered and second.answered)]
                yield kind, 1.0 if found > 0 else 0.5 if found == 0 else 0.0

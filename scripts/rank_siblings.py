"""How well a value head ranks siblings: AUC within a problem, over pairs of children of one node.

python scripts/rank_siblings.py --trees TREES.jsonl --model DIR [--json FILE]

A child's truth is the mean outcome (+1, -1) of the graded leaves below it; pairs whose truths differ count. The trees
come from a search that knows the answers (`is_sampling`), so the truth is what that search found below, no more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from mcts.errors import UserError
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node, walk
from scripts.assembly import check_output, run_command

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


def pairs(root: Node, values: dict[str, float]) -> Iterator[tuple[str, float]]:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result is written")
    arguments = parser.parse_args()
    if arguments.json:
        check_output(arguments.json, arguments.trees)
    from models.training.score import Scorer

    scorer, found = Scorer(arguments.model), {kind: [] for kind in KINDS}
    for where, record in tqdm(read_tree_lines(arguments.trees), unit="tree"):
        roots = read_roots(where, record)
        for root, values in zip(roots, scorer.values(roots, where), strict=True):
            for kind, right in pairs(root, values):
                found[kind].append(right)
    if not any(found.values()):
        raise UserError(
            f"{arguments.trees}: no two siblings whose outcomes differ; "
            "expected trees of mode mcts with is_sampling: true, which knows the answers"
        )
    result: dict[str, Any] = {
        kind: {"auc": sum(rights) / len(rights) if rights else None, "pairs": len(rights)}
        for kind, rights in {**found, "all siblings": [one for rights in found.values() for one in rights]}.items()
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for kind, one in result.items():
        print(f"{kind}: AUC {one['auc']:.3f} over {one['pairs']} pairs" if one["pairs"] else f"{kind}: no pair")
    return 0


if __name__ == "__main__":
    run_command(main)

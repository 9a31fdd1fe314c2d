"""A tree file: save, load, decide offline, for trees of 10³ to 10⁵ nodes. The limit is 2 s each at 10⁵, and linear.

python -m scripts.bench.tree_file [--json FILE]

The trees are searched (scripted model, five children a node) and hold texts, 25 to 60 token ids a node, every field.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcts.question import Question
from mcts.search.offline import offline_inference
from mcts.trees.file import TreeWriter, read_tree_lines
from mcts.trees.node import walk
from mcts.trees.record import from_record, to_record
from scripts.bench import common, scripted
from scripts.bench.common import Claim

LIMIT_SECONDS = 2.0
SIZES = (1_000, 10_000, 100_000)  # nodes


def searched_record(nodes: int) -> dict[str, Any]:
    solver = scripted.solver(scripted.Instant(), scripted.NoCode(), iterations=nodes // 5)
    return asyncio.run(solver.solve(Question(0, {"question": "How large?"}, "")))


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def answers_at_the_leaves(tree: dict[str, Any]) -> None:
    """Every tenth leaf holds an answer, so that a decision has something to choose from."""
    inner = {tag.rpartition(".")[0] for tag in tree}
    for tag in [tag for tag in tree if tag not in inner][::10]:
        tree[tag] |= {"final_answer": "7", "terminal": True}


def times(nodes: int) -> dict[str, float]:
    record = searched_record(nodes)
    answers_at_the_leaves(record["react"])
    root = from_record(record["react"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.jsonl"

        def save() -> None:
            writer = TreeWriter(path, "bench")
            writer.open(resume=False)
            writer.append(0, record | {"react": to_record(root, searched=True)})
            writer.finish()

        saving, _ = seconds(save)
        loading, loaded = seconds(lambda: from_record(next(iter(read_tree_lines(path)))[1]["react"]))
        deciding, answers = seconds(lambda: offline_inference(loaded, beam_width=3))
    assert answers and sum(1 for _ in walk(loaded)) == nodes + 1
    return {"save": saving, "load": loading, "decide": deciding}


def measure() -> list[Claim]:
    measured = {nodes: times(nodes) for nodes in SIZES}
    claims = []
    for action in ("save", "load", "decide"):
        at = {nodes: found[action] for nodes, found in measured.items()}
        ladder = ", ".join(f"{nodes:,}: {1e3 * found:.1f} ms" for nodes, found in at.items())
        claims.append(common.at_most(f"tree of 100,000 nodes: {action}", at[SIZES[-1]], LIMIT_SECONDS, 1, "s", ladder))
        per_node = [1e6 * found / nodes for nodes, found in at.items()]
        claims.append(common.at_most(f"… {action}, a node at 10⁵ over at 10⁴", per_node[-1], per_node[-2], 1.5, "µs"))
    return claims


if __name__ == "__main__":
    common.main(__doc__, measure)

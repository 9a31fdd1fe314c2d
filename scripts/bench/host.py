"""Host time of a simulation: a scripted model without latency, no code, five children, tree file included.

python -m scripts.bench.host [--json FILE]

Trees of 10² to 10⁵ nodes; processor time, which is what a simulation takes from the machine whatever else runs there.
The limit is 0.3 ms. The number of questions makes up for small trees: every size runs at least 20,000 simulations.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from mcts.question import Question
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter
from scripts.bench import common, scripted
from scripts.bench.common import Claim

LIMIT_MS = 0.3
SIMULATIONS = 20_000
SIZES = (100, 1_000, 10_000, 100_000)  # nodes


def milliseconds(nodes: int) -> float:
    """Processor time of a simulation in trees of so many nodes."""
    iterations = nodes // 5
    questions = [Question(i, {"question": f"Question {i}"}, "") for i in range(SIMULATIONS // iterations)]
    solver = scripted.solver(scripted.Instant(), scripted.NoCode(), iterations=iterations)
    with tempfile.TemporaryDirectory() as folder:
        writer = TreeWriter(Path(folder) / "trees.jsonl", "bench")
        writer.open(resume=False)
        started = time.process_time()
        asyncio.run(run_file(solver, questions, writer, 1, lambda record: None))
        return 1e3 * (time.process_time() - started) / SIMULATIONS


def measure() -> list[Claim]:
    milliseconds(1_000)  # warm
    times = {nodes: milliseconds(nodes) for nodes in SIZES}
    claims = [
        common.at_most(f"host time of a simulation, tree of {nodes:,} nodes", found, LIMIT_MS, unit="ms")
        for nodes, found in times.items()
    ]
    flat = common.at_most("… of the largest tree over the smallest", times[SIZES[-1]], times[SIZES[0]], 1.5, "ms")
    return [*claims, flat]


if __name__ == "__main__":
    common.main(__doc__, measure)

"""The Ray path: throughput of one and two nodes on a simulated 7B engine, what a question costs the driver, and where
1,000 engines would saturate.

python -m scripts.bench.cluster [--json FILE]

The engines sleep (20 ms a decoding step, `simulated`), so nodes on this machine do not take each other's cores. The
last table is a simulation: engines that take as long as the simulated one, a driver that takes as long as measured.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from arbor.cluster.engine import Answered, Engine
from arbor.cluster.pool import Member, Pool, Share, connected
from eval.report.table import text_table
from mcts.question import Question
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter
from models.engines.config import RunConfig
from scripts.bench import scripted
from scripts.bench.common import Claim, at_least, beside, main
from scripts.bench.simulated import SimulatedModel, SleepingInterpreter

SEARCH = scripted.KEYS | {"iterations": 4, "max_depth": 50, "descend": False}
NETWORK_BYTES = 1.25e9  # a second, of 10 Gbit Ethernet


class Simulated(Engine):
    """Room for 40 samples at a time: eight questions."""

    async def load(self, config: RunConfig, meta: dict[str, Any], seed: int) -> None:
        self._solver = scripted.solver(SimulatedModel(40, 0.2), SleepingInterpreter(), **SEARCH)


class Instant(Engine):
    """No latency: what is left is the search and the way to the file."""

    async def load(self, config: RunConfig, meta: dict[str, Any], seed: int) -> None:
        self._solver = scripted.solver(scripted.Instant(), scripted.NoCode(), **SEARCH)


class Together(Pool):
    """Gives no question before `engines` are loaded, and knows when that was."""

    begun = 0.0

    def _free(self) -> Member | None:
        if sum(member.loaded for member in self._members) < (self._share.engines or 1):
            return None
        self.begun = self.begun or time.monotonic()
        return super()._free()


def questions(count: int) -> Iterator[Question]:
    return (Question(index, {"question": f"question {index}"}, f"question {index}") for index in range(count))


@dataclass
class Run:
    seconds: float
    cpu_seconds: float  # of the driver
    bytes: int
    taken: list[float]  # seconds of each question
    network: int = 0  # bytes over loopback, of all that the cluster says to itself
    stored: float = 0.0  # bytes in the object store at most, of those that were looked at


def loopback_bytes() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def stored_bytes() -> float:
    """What the object stores of the cluster hold."""
    name = "object_store_memory"
    untyped: Any = ray
    return float(untyped.cluster_resources().get(name, 0) - untyped.available_resources().get(name, 0))


def on_cluster(config: RunConfig, engines: int, count: int, kind: type[Engine], path: Path) -> Run:
    pool = Together(config, {"fingerprint": "bench"}, 0, Share(1, 0, engines), kind)
    writer = TreeWriter(path, "bench")
    writer.open(resume=False)
    taken: list[float] = []
    started_cpu, network, stored = 0.0, 0, 0.0

    def write(question: Question, answered: Answered) -> None:
        nonlocal started_cpu, network, stored
        started_cpu, network = started_cpu or time.process_time(), network or loopback_bytes()
        if question.index % 100 == 50:
            stored = max(stored, stored_bytes())
        writer.append_line(question.index, question.text, answered.line)
        if len(taken) < 200:
            taken.append(json.loads(answered.line)["meta"]["wall_seconds"])

    asyncio.run(pool.run(questions(count), write))
    seconds, cpu = time.monotonic() - pool.begun, time.process_time() - started_cpu
    network = loopback_bytes() - network
    writer.finish()
    return Run(seconds, cpu, path.stat().st_size, taken, network, stored)


def alone(count: int, path: Path) -> Run:
    solver = scripted.solver(scripted.Instant(), scripted.NoCode(), **SEARCH)
    writer = TreeWriter(path, "bench")
    writer.open(resume=False)
    started, cpu = time.monotonic(), time.process_time()
    asyncio.run(run_file(solver, questions(count), writer, 8, lambda record: None))
    return Run(time.monotonic() - started, time.process_time() - cpu, path.stat().st_size, [])


def saturation(
    engines: int, in_flight: int, question: float, driver: float, seed: int = 0
) -> tuple[float, float, float]:
    """(questions a second, share of the driver's time, seconds that a result waits for the driver) of engines with
    `in_flight` questions each, which take `question` seconds ± 50 %, and a driver that takes `driver` seconds each."""
    noise = random.Random(seed)
    events = [noise.uniform(0, 1.5) * question for _ in range(engines * in_flight)]
    heapq.heapify(events)
    end, warm = 12 * question, 2 * question
    free = busy = waited = 0.0
    finished = 0
    while events[0] < end:
        ready = heapq.heappop(events)
        begin = max(ready, free)
        free = begin + driver
        if ready > warm:
            finished, busy, waited = finished + 1, busy + driver, waited + begin - ready
        heapq.heappush(events, free + noise.uniform(0.5, 1.5) * question)
    return finished / (end - warm), min(1.0, busy / (end - warm)), waited / max(1, finished)


def measure() -> list[Claim]:
    config = RunConfig.model_validate(SEARCH | {"batch_size": 8})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    count = 240
    with tempfile.TemporaryDirectory() as folder, connected(cluster.address):
        one = on_cluster(config, 1, count, Simulated, Path(folder) / "one.jsonl")
        two = on_cluster(config, 2, count, Simulated, Path(folder) / "two.jsonl")
        over = on_cluster(config, 1, 400, Instant, Path(folder) / "over.jsonl")
        here = alone(400, Path(folder) / "here.jsonl")
    ray.shutdown()
    cluster.shutdown()
    driver, question = over.cpu_seconds / 400, sum(one.taken) / len(one.taken)
    rows = []
    for engines in (1, 10, 100, 1000, 3000):
        rate, share, wait = saturation(engines, 8, question, driver)
        network = rate * one.bytes / count
        cells = f"{rate:,.1f}", f"{100 * share:.0f} %", f"{1000 * wait:,.1f}", f"{network / 1e6:,.1f}"
        rows.append((str(engines), *cells, f"{100 * network / NETWORK_BYTES:.1f} %"))
    print(f"simulated, {question:.1f} s a question, eight a time; the driver takes {1000 * driver:.2f} ms a question")
    print(text_table(("engines", "questions/s", "driver busy", "waits ms", "MB/s", "of 10 Gbit/s"), rows))
    return [
        at_least("questions a second, two nodes / one", count / two.seconds, count / one.seconds, 1.9, "1/s"),
        beside("driver's CPU a question, Ray / all of one process", 1000 * driver, 1000 * here.cpu_seconds / 400, "ms"),
        beside("wall time a question without latency, Ray / one process", over.seconds / 0.4, here.seconds / 0.4, "ms"),
        beside("bytes over loopback a question / of its line", over.network / 400, over.bytes / 400, "B"),
        beside("object store at most", over.stored, None, "B"),
    ]  # fmt: skip


if __name__ == "__main__":
    main(__doc__, measure)

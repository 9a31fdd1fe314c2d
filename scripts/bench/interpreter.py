"""What a snippet costs through a live state, beside replay, a fresh process pool and a bare fork.

python -m scripts.bench.interpreter [--json FILE]

Three kinds of state: `values` (the trivial path, which keeps no process), `chain` (each snippet is its state's last
child, and runs in its process), `fork` (the state has other children).

Rivals, measured in the same run on the same snippets, none of them with a sandbox:
  replay     the snippet after the 8 earlier ones of its path, in a fresh namespace of a warm process
  pool       a new pool of forked processes for each batch of 16 paths, each of which replays
  forked     five siblings that are all forked, because nobody has announced which is the last
  bare fork  the floor: fork this process, which has sympy loaded, and hear from the child
  search     searches with the embedded model whose snippets are replayed in this process; both write the same trees
Rows without a bar are there for comparison.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from arbor.assembly import grade, load_markup, load_model
from eval.data.questions import read_questions
from mcts.interpreter import Execution, ForkInterpreter, Interpreter, State
from mcts.search.driver import Solver, solve_all
from models.engines.config import load_config
from scripts.bench import common
from scripts.bench.common import Claim, beside
from scripts.bench.published import replay

REPEATS, STATES, QUESTIONS, SIBLINGS = 200, 1000, 20, 5
OF_A_PROCESS = "import os"  # a path with this is more than values
DEPTH, BATCH, IN_FLIGHT = 8, 16, 64
PATHS = {
    "trivial": ([f"x{i} = {i} * 7" for i in range(DEPTH)], "print(x7 + 1)"),
    "sympy": (
        [
            "import sympy as sp\nx, y = sp.symbols('x y')",
            "roots = sp.solve(x**3 - 6*x**2 + 11*x - 6, x)",
            "area = sp.integrate(x**2 * sp.exp(-x), (x, 0, sp.oo))",
            "pair = sp.solve([x + 2*y - 5, 3*x - y - 1], [x, y])",
            "f = sp.simplify(sp.sin(x)**4 - sp.cos(x)**4)",
            "series = sp.series(sp.log(1 + x), x, 0, 6)",
            "m = sp.Matrix([[2, 1], [1, 3]]).eigenvals()",
            "limit = sp.limit(sp.sin(3*x) / x, x, 0)",
        ],
        "print(sum(roots) + area + pair[x] + limit)",
    ),
}


def replay_times(path: list[str], code: str, repeats: int) -> list[float]:
    import sympy  # noqa: F401  # warm, as a live state is

    replay(path, code)
    return timed(lambda: replay(path, code), repeats)


def pool_times(path: list[str], code: str, repeats: int) -> list[float]:
    """Seconds a snippet: those of a batch over its size."""

    def batch() -> None:
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
            list(pool.map(replay, [path] * BATCH, [code] * BATCH))

    return [seconds / BATCH for seconds in timed(batch, max(3, repeats // BATCH))]


def bare_fork_times(repeats: int) -> list[float]:
    """What the machine takes for a fork of a process with sympy loaded, until the child has said a word."""
    times = []
    for _ in range(repeats):
        read, write = os.pipe()
        started = time.perf_counter()
        if (child := os.fork()) == 0:
            os.write(write, b"x")
            os._exit(0)
        os.read(read, 1)
        times.append(time.perf_counter() - started)
        os.close(read)
        os.close(write)
        os.waitpid(child, 0)
    return times


def timed(run: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


async def live_state(interpreter: ForkInterpreter, path: list[str]) -> State:
    state = None
    for code in path:
        state = (await interpreter.run(state, code)).state
    assert state is not None
    return state


async def chain_times(interpreter: ForkInterpreter, path: list[str], code: str, repeats: int) -> list[float]:
    """Seconds of a snippet that is run again and again, each time as the last child of the state before."""
    state, times = await live_state(interpreter, [OF_A_PROCESS, *path]), []
    for _ in range(repeats):
        state.announce(1)
        started = time.perf_counter()
        execution = await interpreter.run(state, code)
        times.append(time.perf_counter() - started)
        assert execution.state is not None and not execution.failed
        state = execution.state
    return times


async def sibling_times(
    interpreter: ForkInterpreter, path: list[str], code: str, repeats: int, announced: bool
) -> list[float]:
    """Seconds a sibling: those of an expansion of five over five."""
    base, times = await live_state(interpreter, [OF_A_PROCESS, *path]), []
    for _ in range(repeats):
        state = (await interpreter.run(base, "0")).state
        assert state is not None
        if announced:
            state.announce(SIBLINGS)
        started = time.perf_counter()
        await asyncio.gather(*(interpreter.run(state, code) for _ in range(SIBLINGS)))
        times.append((time.perf_counter() - started) / SIBLINGS)
    return times


async def fork_times(interpreter: ForkInterpreter, path: list[str], code: str, repeats: int) -> list[float]:
    state = await live_state(interpreter, path)
    expected, times = replay(path, code), []
    for _ in range(repeats):
        started = time.perf_counter()
        execution = await interpreter.run(state, code)
        times.append(time.perf_counter() - started)
        assert execution.observation == expected, execution.observation
    return times


async def throughput(interpreter: ForkInterpreter, count: int) -> float:
    """Snippets a second with 64 in flight."""
    path, code = PATHS["trivial"]
    state = await live_state(interpreter, path)
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        async with gate:
            await interpreter.run(state, code)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - started)


async def state_memory(interpreter: ForkInterpreter, count: int) -> tuple[float, float]:
    """MiB of all states together (proportional set size), and seconds to make them. Half follow a sympy snippet."""
    base = await live_state(interpreter, PATHS["sympy"][0][:2])
    fresh = await live_state(interpreter, [OF_A_PROCESS])
    before = proportional_bytes(interpreter)
    started = time.perf_counter()
    states = []
    for index in range(count):
        parent = base if index % 2 else fresh
        states.append((await interpreter.run(parent, f"value = {index}\nprint(value)")).state)
    seconds = time.perf_counter() - started
    return (proportional_bytes(interpreter) - before) / 2**20, seconds


def lone_process_mib() -> float:
    """What a process that loads the modules for itself holds alone."""
    code = "import math, numpy, sympy; print(open('/proc/self/smaps_rollup').read())"
    rows = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(rows.partition("Private_Dirty:")[2].split()[0]) / 1024


def proportional_bytes(interpreter: ForkInterpreter) -> int:
    total = 0
    for node in [*interpreter._roots.values(), *interpreter._live]:
        assert node.process is not None
        folder = Path(f"/proc/{node.process.pid}")
        text = (folder / "smaps_rollup").read_text()
        total += int(text.partition("\nPss:")[2].split()[0]) * 1024
        total += int((folder / "status").read_text().partition("VmPTE:")[2].split()[0]) * 1024
    return total


async def overshoot(limit_seconds: float, count: int) -> list[float]:
    """Seconds beyond the limit until the caller has the observation of an endless snippet."""
    async with ForkInterpreter(timeout_seconds=limit_seconds) as brisk:
        times = []
        for code in ("while True: pass", "7 ** 10 ** 9") * (count // 2):
            started = time.perf_counter()
            await brisk.run(None, code)
            times.append(time.perf_counter() - started - limit_seconds)
    return times


class ReplayingInterpreter:
    """The rival in a search: a state is the list of its path's snippets, and all of them run again for each child."""

    async def run(self, state: State | None, code: str) -> Execution:
        path: list[str] = [] if state is None else state.node  # type: ignore[assignment]
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 15)
        try:
            observation = replay(path, code)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return Execution(observation, State([*path, code]), time.perf_counter() - started, False)


async def search(name: str, model: Any, interpreter: Interpreter) -> tuple[float, list[Any]]:
    """Seconds of the searches of the first development questions, and their trees."""
    config = load_config(Path("configs/tiny") / f"{name}.yaml")
    solver = Solver(config, model, load_markup(config), interpreter, grade, 0, {})
    questions = list(islice(read_questions(Path("models/tiny/data/dev.jsonl")), QUESTIONS))
    started = time.perf_counter()
    found = {question.index: record["react"] async for question, record in solve_all(solver, questions, QUESTIONS)}
    return time.perf_counter() - started, [found[index] for index in sorted(found)]


async def searches(interpreter: ForkInterpreter) -> list[Claim]:
    claims = []
    model = load_model(load_config(Path("configs/tiny/mcts.yaml")))
    for name in ("sbs_1_5", "mcts"):
        rival, trees = await search(name, model, ReplayingInterpreter())
        ours, same = await search(name, model, interpreter)
        equal = sum(one == other for one, other in zip(trees, same, strict=True))
        note = f"{equal} of {len(trees)} trees the same"
        claim = f"search of the embedded model, {name}, against replay"
        claims.append(common.at_most(claim, ours, rival, 1.0, "s", note))
    return claims


def interval(times: list[float]) -> str:
    """n, the 95 % interval of the median by ranks, and the 99th percentile, in milliseconds."""
    ordered = sorted(1e3 * seconds for seconds in times)
    last, half = len(ordered) - 1, 0.98 * len(ordered) ** 0.5
    low, high = ordered[max(0, int(last / 2 - half))], ordered[min(last, int(last / 2 + half) + 1)]
    return f"n = {last + 1}, {low:.2f}–{high:.2f}, p99 {ordered[int(0.99 * last)]:.1f}"


async def snippet_claims(interpreter: ForkInterpreter) -> list[Claim]:
    claims = []
    for name, (path, code) in PATHS.items():
        trivial = name == "trivial"
        fewer = REPEATS if trivial else REPEATS // 4
        own = path if trivial else [OF_A_PROCESS, *path]
        live, chain = (
            await fork_times(interpreter, own, code, REPEATS),
            await chain_times(interpreter, path, code, REPEATS),
        )
        forked = await fork_times(interpreter, [OF_A_PROCESS, *path], code, REPEATS)
        siblings = [await sibling_times(interpreter, path, code, fewer // 5, announced) for announced in (False, True)]
        replayed = 1e3 * statistics.median(replay_times(path, code, fewer))
        pooled = 1e3 * statistics.median(pool_times(path, code, fewer))
        ours, chained, fork, unannounced, sibling = (
            1e3 * statistics.median(times) for times in (live, chain, forked, *siblings)
        )
        claims += [
            common.at_most(
                f"{name} snippet in a chain", chained, 0.5 if trivial else 5.0, unit="ms", note=interval(chain)
            ),
            beside(f"{name} snippet, forked, against replay of a path of 8", fork, replayed, "ms", interval(forked)),
            beside("… against a pool", fork, pooled, "ms"),
            common.at_most(
                f"{name} snippet, one of five siblings of a process, against as many forks",
                sibling, unannounced, 0.5, "ms", interval(siblings[1]),
            ),
        ]  # fmt: skip
        if trivial:
            rate = await throughput(interpreter, 5 * REPEATS)
            floor = 1e3 * statistics.median(bare_fork_times(REPEATS))
            claims += [
                common.at_most("trivial snippet in a search", ours, 1.0, unit="ms", note=interval(live)),
                beside("… against a bare fork", ours, floor, "ms"),
                beside("… against replay of a path of 8", ours, replayed, "ms"),
                beside("snippets a second, 64 in flight, against a pool for each 16", rate, 1e3 / pooled, "1/s"),
            ]
    return claims


async def claims() -> list[Claim]:
    async with ForkInterpreter(max_states=STATES + 16) as interpreter:
        rows = await snippet_claims(interpreter)
        rows += await searches(interpreter)
        alone = STATES * lone_process_mib()
        mib, seconds = await state_memory(interpreter, STATES)
        note = f"made in {seconds:.1f} s"
        rows.append(beside(f"memory of {STATES} live states, against as many processes", mib, alone, "MiB", note))
    late = await overshoot(1.0, 6)
    rows.append(common.at_most("an endless snippet beyond its limit", max(late), 1.0, unit="s", note="most of 6"))
    return rows


if __name__ == "__main__":
    common.main(__doc__, lambda: asyncio.run(claims()))

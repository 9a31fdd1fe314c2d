"""What a snippet costs through a live forked state, beside what it costs by replay and in a fresh process pool.

python scripts/bench/interpreter.py [--repeats 200] [--states 1000] [--json FILE]

Rivals, measured in the same run on the same snippets:
  replay     the snippet after the 8 earlier ones of its path, in a fresh namespace of a warm process (no sandbox)
  pool       a new pool of forked processes for each batch of 16 paths, each of which replays (no sandbox)
  bare fork  the floor: fork this process, which has sympy loaded, and hear from the child
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import io
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcts.interpreter import ForkInterpreter, State
from mcts.interpreter.observation import Capture, observe

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


def replay(path: list[str], code: str) -> str:
    """The last snippet's observation, after every earlier one ran again."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    capture = Capture()
    for earlier in path:
        observe(earlier, namespace, capture, "alphamath")
    standard_output, sys.stdout = sys.stdout, io.TextIOWrapper(io.BufferedWriter(capture))
    try:
        return observe(code, namespace, capture, "alphamath")[0]
    finally:
        sys.stdout = standard_output


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
    before = proportional_bytes(interpreter)
    started = time.perf_counter()
    states = []
    for index in range(count):
        parent = base if index % 2 else None
        states.append((await interpreter.run(parent, f"value = {index}\nprint(value)")).state)
    seconds = time.perf_counter() - started
    return (proportional_bytes(interpreter) - before) / 2**20, seconds


def proportional_bytes(interpreter: ForkInterpreter) -> int:
    total = 0
    for node in [interpreter._root, *interpreter._live]:
        text = Path(f"/proc/{node.process.pid}/smaps_rollup").read_text()
        total += int(text.partition("\nPss:")[2].split()[0]) * 1024
        total += int(Path(f"/proc/{node.process.pid}/status").read_text().partition("VmPTE:")[2].split()[0]) * 1024
    return total


async def overshoot(limit_seconds: float, count: int) -> list[float]:
    """Seconds beyond the limit until the caller has the observation of an endless snippet."""
    async with ForkInterpreter(timeout_seconds=limit_seconds) as brisk:
        times = []
        for code in ("while True: pass", "7 ** 10 ** 9")[: max(1, count)] * (count // 2):
            started = time.perf_counter()
            await brisk.run(None, code)
            times.append(time.perf_counter() - started - limit_seconds)
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Milliseconds; the interval is that of the median, 95 %, by ranks."""
    ordered = sorted(1e3 * seconds for seconds in times)
    half = 0.98 * len(ordered) ** 0.5
    low, high = int(len(ordered) / 2 - half), int(len(ordered) / 2 + half)
    return {
        "n": len(ordered),
        "median_ms": statistics.median(ordered),
        "low_ms": ordered[max(0, low)],
        "high_ms": ordered[min(len(ordered) - 1, high)],
        "p99_ms": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }


async def measure(repeats: int, states: int) -> dict[str, Any]:
    report: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    async with ForkInterpreter(max_states=states + 16) as interpreter:
        for name, (path, code) in PATHS.items():
            report[f"{name}, forked"] = summary(await fork_times(interpreter, path, code, repeats))
            fewer = repeats if name == "trivial" else repeats // 4
            report[f"{name}, replay"] = summary(replay_times(path, code, fewer))
            report[f"{name}, pool"] = summary(pool_times(path, code, fewer))
        report["bare fork"] = summary(bare_fork_times(repeats))
        report["snippets_per_second"] = await throughput(interpreter, 5 * repeats)
        report["states"] = states
        report["states_mib"], report["states_seconds"] = await state_memory(interpreter, states)
    report["overshoot_ms"] = summary(await overshoot(1.0, 6))
    return report


def show(report: dict[str, Any]) -> None:
    print(f"{report['cores']} cores, load average {report['load']:.1f}")
    print(f"{'':18}{'n':>6}{'median ms':>12}{'95 % interval':>18}{'p99 ms':>10}")
    for name, row in report.items():
        if isinstance(row, dict):
            interval = f"{row['low_ms']:.2f}–{row['high_ms']:.2f}"
            print(f"{name:18}{row['n']:>6}{row['median_ms']:>12.2f}{interval:>18}{row['p99_ms']:>10.2f}")
    for name in PATHS:
        ours = report[f"{name}, forked"]["median_ms"]
        factors = {rival: report[f"{name}, {rival}"]["median_ms"] / ours for rival in ("replay", "pool")}
        print(f"{name}: replay takes {factors['replay']:.1f} times, a pool {factors['pool']:.1f} times as long as ours")
    print(f"{report['snippets_per_second']:.0f} snippets a second with {IN_FLIGHT} in flight")
    states, mib = report["states"], report["states_mib"]
    print(f"{states} live states: {mib:.0f} MiB, {mib / states:.2f} each, made in {report['states_seconds']:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = asyncio.run(measure(options.repeats, options.states))
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

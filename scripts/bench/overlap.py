"""Nothing waits for the slowest: wall time over the larger of total engine time and longest chain.

python -m scripts.bench.overlap [--json FILE]

A simulated 7B model (20 ms a decoding step, samples of 20 to 60 tokens) and snippets that sleep 1 to 2,000 ms, drawn
at random. Two loads, so that each limit binds once: room for 20 samples in a step (the engine
is the limit), and room for all (the slowest question is the limit). The bar is 1.1.
"""

from __future__ import annotations

import asyncio
import time

from mcts.question import Question
from mcts.search.driver import solve_all
from scripts.bench import common, scripted
from scripts.bench.common import Claim
from scripts.bench.simulated import SimulatedModel, SleepingInterpreter


async def run(questions: int, iterations: int, max_rows: int) -> tuple[float, SimulatedModel]:
    """Wall seconds of all questions at once."""
    model = SimulatedModel(max_rows)
    solver = scripted.solver(model, SleepingInterpreter(), iterations=iterations)
    asked = [Question(i, {"question": f"Question {i}"}, "") for i in range(questions)]
    started = time.perf_counter()
    async for _ in solve_all(solver, asked, questions):
        pass
    return time.perf_counter() - started, model


def compare(name: str, questions: int, iterations: int, max_rows: int) -> Claim:
    wall, model = asyncio.run(run(questions, iterations, max_rows))
    engine, chain = model.engine_seconds, max(model.chains.values())
    claim = f"simulated 7B, {questions} questions × {iterations} simulations × 5, {name}: wall time"
    return common.at_most(claim, wall, max(engine, chain), 1.1, "s", f"engine {engine:.1f} s, chain {chain:.1f} s")


def measure() -> list[Claim]:
    return [compare("20 samples a step", 32, 5, 20), compare("all in one step", 24, 8, 1 << 20)]


if __name__ == "__main__":
    common.main(__doc__, measure)

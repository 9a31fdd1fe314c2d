"""One question alone: eight leaves in flight against one.

python -m scripts.bench.one_question [--json FILE]

40 simulations × 5 over a simulated 7B model (20 ms a decoding step for all that runs) with snippets that sleep 1 to
2,000 ms, by both rules; and the embedded model with the real interpreter, its problems one after another. The bar is
three times faster. Accuracy at equal simulations is another matter: docs/performance.md.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

from eval.data.questions import read_questions
from mcts.interpreter import ForkInterpreter
from mcts.model import LanguageModel
from mcts.question import Question
from mcts.search.driver import Solver
from models.engines.config import RunConfig, load_config
from scripts.bench import common, scripted
from scripts.bench.common import Claim
from scripts.bench.simulated import SimulatedModel, SleepingInterpreter

LEAVES, BAR = 8, 3.0
PROBLEMS, SIMULATIONS = 10, 40


async def simulated(leaves: int, rule: str) -> float:
    """Wall seconds of one question."""
    keys = {"iterations": SIMULATIONS, "leaves_in_flight": leaves, "in_flight_rule": rule}
    solver = scripted.solver(SimulatedModel(), SleepingInterpreter(), **keys)
    started = time.perf_counter()
    record = await solver.solve(Question(0, {"question": "Alone?"}, ""))
    assert record["meta"]["simulations"] == SIMULATIONS
    return time.perf_counter() - started


async def embedded(config: RunConfig, model: LanguageModel) -> float:
    """Wall seconds of a few problems, one after another, and as many simulations of each."""
    from arbor.assembly import load_markup

    async with ForkInterpreter() as interpreter:
        solver = Solver(config, model, load_markup(config), interpreter, None, 0)
        started = time.perf_counter()
        for question in itertools.islice(read_questions("models/tiny/data/heldout.jsonl"), PROBLEMS):
            await solver.solve(question)
        return time.perf_counter() - started


def measure() -> list[Claim]:
    one = asyncio.run(simulated(1, "unobserved"))
    claims = []
    for rule in ("unobserved", "virtual_loss"):
        several = asyncio.run(simulated(LEAVES, rule))
        claim = f"one question, {LEAVES} leaves in flight ({rule}), simulated 7B: questions a minute"
        claims.append(common.at_least(claim, 60 / several, 60 / one, BAR, "1/min", "rival: one leaf in flight"))
    from arbor.assembly import load_model

    config = load_config(Path("configs/tiny/mcts.yaml"))
    model = load_model(config)
    asyncio.run(embedded(config, model))  # warm
    alone, together = (
        asyncio.run(embedded(config.model_copy(update={"leaves_in_flight": leaves}), model)) for leaves in (1, LEAVES)
    )
    claim = f"one question, {LEAVES} leaves in flight, embedded model: questions a minute"
    found = common.at_least(claim, 60 * PROBLEMS / together, 60 * PROBLEMS / alone, BAR, "1/min")
    return [*claims, found]


if __name__ == "__main__":
    common.main(__doc__, measure)

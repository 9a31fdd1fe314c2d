"""The whole of a question: where the wall time of a run goes, beside the published schedule on the same model.

    python -m scripts.bench.end_to_end [--json FILE]          (arbor bench end-to-end)

64 questions of the embedded model and, where ARBOR_REAL_MODEL names the folder that `make test-real` prepares, 16 of
SmolLM2-135M-Instruct (few-shot programs for the same problems), by step beam (3,5) and MCTS of 40 and 16 simulations.

The engine works at one pass at a time, so the wall time is its time and the time in which it stood still. A pass is
divided between prefill and decode by positions, not by a clock. Of the time in which the engine stood still, host is
the processor time of the search's own thread (search, markup, files) as far as it fits in, even where that ran beside
the engine; the rest is divided between code and grading as their seconds are, and idle is what neither explains. So
host is at most, code, grading and idle are at least, what is shown; the four together are exact.

The rival (`scripts/bench/published.py`) calls `transformers.generate`, then the model again for the values, with whole
prompts. It stops after a minute or two of rounds; its rate falls as prompts grow, so that flatters it.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench import common
from scripts.bench.common import Claim

RIVAL_SECONDS = 60.0
TINY = Path("configs/tiny")
SMOLLM2: dict[str, Any] = {
    "prompt_wrap": "pal", "result_unwrap": "pal", "num_few_shot": 4, "temperature": 0.7, "max_tokens": 96,
    "max_depth": 4, "stop": None, "iterations": 16, "batch_size": 16, "engine_args": {},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row: a configuration, how many questions it gets, and how many of them the rival."""

    name: str
    config: Any
    questions: int
    rival: int


def cases() -> list[Case]:
    from models.engines.config import RunConfig, load_config

    found = []
    folder = os.environ.get("ARBOR_REAL_MODEL")
    common_keys = {"max_total_time": 1e5, "descend": False}
    for method in ("sbs_3_5", "mcts"):
        config = load_config(TINY / f"{method}.yaml")
        found.append(Case(f"embedded, {method}", config.model_copy(update=common_keys | {"batch_size": 64}), 64, 64))
        if folder is not None:
            keys = config.model_dump() | SMOLLM2 | common_keys | {"model_dir": str(Path(folder) / "transformers")}
            found.append(Case(f"SmolLM2-135M, {method}", RunConfig.model_validate(keys), 16, 2))
    if folder is None:
        print("SmolLM2 is left out: set ARBOR_REAL_MODEL to the folder that `make test-real` prepares (runs/real)")
    return found


def questions(count: int) -> list[Any]:
    from mcts.jsonl import read_objects
    from mcts.question import Question

    rows = [row for _, row in read_objects(Path("models/tiny/data/heldout.jsonl"))][:count]
    return [Question(index, row, "") for index, row in enumerate(rows)]


async def ours(case: Case) -> dict[str, float]:
    """The wall time of a run and its parts, in seconds."""
    from arbor.assembly import load_model, open_solver
    from mcts.search.driver import solve_all

    model: Any = load_model(case.config)
    async with open_solver(case.config, model, {}, 0) as solver:
        asked = questions(case.questions)
        started, own = time.perf_counter(), time.thread_time()
        metas = [record["meta"] async for _, record in solve_all(solver, asked, len(asked))]
        wall, host = time.perf_counter() - started, time.thread_time() - own
    prefill, decode = model.totals.prefill_seconds, model.totals.decode_seconds
    still = max(0.0, wall - prefill - decode)
    host = min(host, still)
    code, grading = (sum(meta[key] for meta in metas) for key in ("code_seconds", "grading_seconds"))
    waited = min(still - host, code + grading)
    share = waited / ((code + grading) or 1.0)
    parts = {"prefill": prefill, "decode": decode, "code": share * code, "grading": share * grading, "host": host}
    return parts | {"idle": still - host - waited, "wall": wall}


def rival(case: Case) -> float:
    """Questions a second of the published schedule."""
    from arbor.assembly import load_markup
    from scripts.bench.published import LockStep, Stock, pool

    config, markup = case.config, load_markup(case.config)
    texts = [question.text for question in questions(case.rival)]
    search = LockStep(Stock(config, config.stop or markup.stop), markup, texts, pool()[1])
    if config.mode == "sbs":
        search.step_beam(config.step_beam_width, config.n_generate_sample, config.max_depth)
        return len(texts) / search.seconds
    search.monte_carlo(config.iterations, config.n_generate_sample, config.c_puct, RIVAL_SECONDS)
    ended = all(root.closed for root in search.roots)
    return len(texts) / search.seconds * (1.0 if ended else search.rounds / config.iterations)


def measure() -> list[Claim]:
    claims = []
    for case in cases():
        parts = asyncio.run(ours(case))
        wall = parts.pop("wall")
        assert math.isclose(sum(parts.values()), wall)
        shown = ", ".join(f"{name} {100 * part / wall:.0f} %" for name, part in parts.items())
        print(f"{case.name}: {case.questions} questions in {wall:.1f} s: {shown}", flush=True)
        what = f"{case.name}: questions a second beside the published schedule"
        claims.append(common.at_least(what, case.questions / wall, rival(case), 5, "1/s"))
        claims += [common.beside(f"{case.name}: {name}", part, wall, "s") for name, part in parts.items()]
    return claims


if __name__ == "__main__":
    common.main(__doc__, measure)

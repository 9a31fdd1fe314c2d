"""The second half of output-space shaping: of sampled solutions (trees) the valid ones are
kept, and a teacher continues the wrong ones from every line.

python scripts/correct.py --custom_cfg TEACHER.yaml --trees SAMPLED.jsonl --output SOLUTIONS.jsonl

The configuration is the teacher's: its model and how it finishes a solution; its markup is that of the samples. The
same command continues a run that was stopped. scripts/make_imitation.py turns the solutions into examples.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcts.config import Config, load_config, make_keys
from mcts.jsonl import read_objects
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter
from models.training.shaping import Corrector, Limits, Shaper, Teacher, read_samples
from scripts.assembly import add_config_arguments, describe, grade, load_model, open_solver, run_command
from solver_demo import Progress

LIMITS = {
    "keep": "valid samples a question",
    "keep_corrected": "corrected samples a question",
    "wrong": "wrong samples that the teacher is shown",
    "enough": "valid samples that need no teacher",
    "prefixes": "beginnings of a wrong sample that are continued, evenly spread; 0: all",
}


async def correct(arguments: argparse.Namespace, config: Config) -> Counter[str]:
    samples = read_samples(arguments.trees, config)
    meta = describe(config)
    limits = make_keys(Limits, {name: getattr(arguments, name) for name in Limits.model_fields}, "limits")
    keys = [*limits.limits().values(), arguments.trees.read_bytes()]
    meta["fingerprint"] += "-" + hashlib.sha256(repr(keys).encode()).hexdigest()[:8]
    writer = TreeWriter(arguments.output, meta["fingerprint"])
    writer.open(resume=True)
    progress = Progress(len(samples), len(writer.done))
    async with open_solver(config, load_model(config), meta, config.seed or 0) as solver:
        shaper = Shaper(Teacher(solver), grade, limits)
        corrector = Corrector(shaper, {question.index: record for question, record in samples}, meta, config)
        questions = [question for question, _ in samples]
        await run_file(corrector, questions, writer, config.questions_in_flight, lambda record: progress.count(None))
    progress.bar.close()
    rows = [row for _, row in read_objects(arguments.output)]
    counts = Counter(one["source"] for row in rows for one in row["solutions"])
    return counts + Counter({"questions": len(rows), "with a solution": sum(bool(row["solutions"]) for row in rows)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--trees", type=Path, required=True, help="sampled solutions")
    parser.add_argument("--output", type=Path, required=True, help="solutions to learn from (JSONL)")
    for name, limit in Limits.model_fields.items():
        parser.add_argument(
            f"--{name}", type=int, default=limit.default, help=f"{LIMITS[name]} (default {limit.default})"
        )
    arguments = parser.parse_args()
    counts = asyncio.run(correct(arguments, load_config(arguments.custom_cfg, arguments.set)))
    print(json.dumps(counts, indent=1), file=sys.stderr)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcts.errors import UserError
from mcts.jsonl import read_objects
from mcts.question import Question
from mcts.search.budget import SharedBudget
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter, read_roots, read_tree_lines
from models.engines.config import RunConfig, load_config, recorded_fingerprint
from models.training.shaping import Shaper, Teacher
from scripts.assembly import add_config_arguments, describe, grade, load_model, open_solver, run_command
from solver_demo import Progress

LIMITS = ("keep", "keep_corrected", "wrong", "enough", "prefixes")


@dataclass
class Corrector:
    """Stands where a solver stands: the record of a question holds its solutions. samples: question → its trees."""

    shaper: Shaper
    samples: dict[int, dict[str, Any]]
    meta: dict[str, Any]
    config: RunConfig
    shared: SharedBudget | None = None  # a driver's; corrections have no budget to share

    async def solve(self, question: Question) -> dict[str, Any]:
        found = await self.shaper.shape(question, self.samples[question.index])
        meta = {**self.meta, "index": question.index, "seed": self.shaper.teacher.solver.seed}
        return {"question": question.text, "answer": list(question.answers), "solutions": found, "meta": meta}


def read_samples(path: Path, config: RunConfig) -> list[tuple[Question, dict[str, Any]]]:
    """The questions of a tree file with their records. Raises UserError for what cannot be corrected."""
    found = []
    for number, (where, record) in enumerate(read_tree_lines(path)):
        question = Question(number, record, where)
        written = (record.get("meta") or {}).get("config") or {}  # a file of the published system has neither
        wrap = written.get("prompt_wrap", "react") if isinstance(written, dict) else written
        if wrap != config.prompt_wrap:
            raise UserError(f"{where}: written with markup {wrap}, the teacher's is {config.prompt_wrap}; use one")
        if not question.answers:
            raise UserError(f'{where}: "answer" is missing; without it nothing tells a valid solution')
        read_roots(where, record)  # a broken tree is found before any work
        found.append((question, record))
    return found


async def correct(arguments: argparse.Namespace, config: RunConfig) -> Counter[str]:
    samples = read_samples(arguments.trees, config)
    meta = describe(config)
    limits = [getattr(arguments, name) for name in LIMITS]
    keys = [*limits, arguments.trees.read_bytes()]
    meta["fingerprint"] += "-" + hashlib.sha256(repr(keys).encode()).hexdigest()[:8]
    writer = TreeWriter(arguments.output, meta["fingerprint"], recorded_fingerprint)
    writer.open(resume=True)
    progress = Progress(len(samples), len(writer.done))
    async with open_solver(config, load_model(config), meta, config.seed or 0) as solver:
        shaper = Shaper(Teacher(solver), grade, *limits)
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
    parser.add_argument("--prefixes", type=int, default=0, help="beginnings of a wrong sample, evenly spread (0: all)")
    parser.add_argument("--keep", type=int, default=4, help="valid samples a question (default 4)")
    parser.add_argument("--keep_corrected", type=int, default=4, help="corrected ones (default 4)")
    parser.add_argument("--wrong", type=int, default=4, help="wrong samples that the teacher is shown (default 4)")
    parser.add_argument("--enough", type=int, default=4, help="valid samples that need no teacher (default 4)")
    arguments = parser.parse_args()
    counts = asyncio.run(correct(arguments, load_config(arguments.custom_cfg, arguments.set)))
    print(json.dumps(counts, indent=1), file=sys.stderr)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)

"""Keep the valid ones of sampled solutions, and let a teacher continue the wrong ones from every line (shaping).

arbor correct --config TEACHER.yaml --trees SAMPLED.jsonl --output SOLUTIONS.jsonl

The configuration is the teacher's: its model and how it finishes a solution; its markup is that of the samples. The
same command continues a run that was stopped. `arbor imitation` turns the solutions into examples.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from arbor.assembly import describe, grade, load_model, open_writer
from arbor.commands import _options as options
from arbor.commands._progress import Progress, search_all
from mcts.config import make_keys
from mcts.jsonl import read_objects
from mcts.search.driver import Solver
from models.engines.config import RunConfig
from models.training.shaping import Corrector, Limits, Shaper, Teacher, read_samples


def correct(config: RunConfig, trees: Path, output: Path, limits: Limits, live: bool) -> Counter[str]:
    """Writes the solutions of a tree file; returns counts of them. Raises UserError."""
    samples = read_samples(trees, config)
    meta = describe(config)
    keys = [*limits.limits().values(), trees.read_bytes()]
    meta["fingerprint"] += "-" + hashlib.sha256(repr(keys).encode()).hexdigest()[:8]
    progress = Progress(len(samples), lambda record: None, live=live)
    writer = open_writer(output, meta, progress)
    records = {question.index: record for question, record in samples}

    def corrector(solver: Solver) -> Corrector:
        return Corrector(Shaper(Teacher(solver), grade, limits), records, meta, config)

    seeded = config.model_copy(update={"seed": config.seed or 0})
    search_all(seeded, load_model(config), [question for question, _ in samples], writer, meta, progress, corrector)
    rows = [row for _, row in read_objects(output)]
    counts = Counter(one["source"] for row in rows for one in row["solutions"])
    return counts + Counter({"questions": len(rows), "with a solution": sum(bool(row["solutions"]) for row in rows)})


@options.command(__doc__)
@options.config()
@options.trees("sampled solutions")
@options.output("solutions to learn from (JSONL)")
@click.option("--keep", type=options.Whole(0), default=4, help="valid samples a question")
@click.option("--keep_corrected", type=options.Whole(0), default=4, help="corrected samples a question")
@click.option("--wrong", type=options.Whole(0), default=4, help="wrong samples that the teacher is shown")
@click.option("--enough", type=options.Whole(0), default=4, help="valid samples that need no teacher")
@click.option(
    "--prefixes", type=options.Whole(0), default=0, help="beginnings of a wrong sample, evenly spread; 0: all"
)
@options.live
def command(config: RunConfig, trees: Path, output: Path, live: bool, **limits: Any) -> None:
    counts = correct(config, trees, output, make_keys(Limits, limits, "limits"), live)
    print(json.dumps(counts, indent=1), file=sys.stderr)
    print(output)

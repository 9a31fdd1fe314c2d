"""Put the shards of a run together: one tree file, as the undivided run writes it.

arbor merge TREES.shard-*.jsonl --output TREES.jsonl
arbor merge TREES.shard-*.jsonl --output TREES.jsonl --finish QUESTIONS.jsonl

The shards must belong together (configuration, model, seed, questions), and no question may be missing or there twice.
With --finish what is missing is searched here, by the configuration that stands in the shards; where that is stopped,
the same command goes on.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.assembly import check_output, describe
from arbor.commands import _options as options
from arbor.commands._progress import Progress, graded
from arbor.commands.solve import Asked, solve
from arbor.shards import Merged
from mcts.errors import UserError
from models.engines.config import make_config


def merge(files: tuple[Path, ...], output: Path, finish: Path | None) -> None:
    check_output(output, *files)
    merged = Merged()
    for path in files:
        merged.add(path)
    if merged.run is None:
        raise UserError(f"{files[0]}: expected the lines of a run with --shard, found no line in any file")
    if finish is not None and output.exists():
        merged.add_unfinished(output)
    if merged.missing and finish is None:
        raise UserError(
            f"{merged.missing} of {merged.total} questions are missing: {merged.what_is_missing()}; run these shards "
            "again, or search what is missing here with --finish QUESTIONS.jsonl"
        )
    progress = Progress(merged.total, lambda row: row["score"][0] if "score" in row else graded(row))
    for record in merged.write(output):
        progress.see(record)
    if merged.missing and finish is not None:
        search_missing(merged, finish, output)
        return
    print(output)
    progress.conclude(output)


def search_missing(merged: Merged, questions: Path, output: Path) -> None:
    config = make_config(merged.meta["config"], merged.first)
    if describe(config)["fingerprint"] != merged.meta["fingerprint"]:
        raise UserError(
            f"{merged.first}: the model is another one here, or the line is of `arbor infer`; "
            "run the unfinished shard's own command again instead of --finish"
        )
    solve(config, Asked(questions, merged.total), output, resume=True)


@options.command(__doc__)
@click.argument("files", nargs=-1, required=True, type=options.FILE, metavar="SHARD...")
@options.output("the tree file of the whole run")
@click.option("--finish", type=options.FILE, metavar="FILE", help="search what is missing: the run's question file")
def command(files: tuple[Path, ...], output: Path, finish: Path | None) -> None:
    merge(files, output, finish)

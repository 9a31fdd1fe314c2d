"""Search the same problems by several methods and print what each one gives and costs.

arbor demo                  80 held-out problems of guess and check and 80 long chains, by the embedded model
arbor demo --limit 500 --configs configs/tiny/*.yaml --questions FILE... --output runs/full

The trees of FILE.jsonl by CONFIG.yaml are in OUTPUT/FILE/CONFIG.jsonl.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import click

from arbor.assembly import HELD_OUT, describe, load_model, open_writer, shown
from arbor.commands import _options as options
from arbor.commands._progress import Progress, search_all
from eval.data.questions import count_questions, read_questions
from eval.report.columns import DEMO, columns
from eval.report.table import share, text_table
from mcts.errors import UserError
from mcts.trees.file import read_tree_lines
from models.engines.config import RunConfig, load_config

CONFIGS = ("greedy", "maj5", "sbs_1_5", "sbs_3_5", "mcts")
HEAD = ("method", "accuracy", "95 %", "s/question")
NOTE = """
computed: tokens that went through the network, a question; reused: share of the prompts' tokens that did
not; ÷ distinct: tokens computed over the distinct tokens of the finished trees.
"""


def search(config: RunConfig, model: Any, questions: Path, n: int, path: Path, live: bool) -> float:
    """Searches the first `n` questions into `path` (continuing what is there) and returns the seconds it took."""
    meta, progress = describe(config), Progress(n, name=path.stem, live=live)
    writer = open_writer(path, meta, progress)
    started = time.monotonic()
    search_all(config, model, itertools.islice(read_questions(questions), n), writer, meta, progress)
    return time.monotonic() - started


def row(path: Path, seconds: float) -> list[str]:
    records = [record for _, record in read_tree_lines(path)]
    right = sum((one["prediction"] or {}).get("correct") is True for one in records)
    cells = [column.cell(records) for column in columns(DEMO).values()]
    return [path.stem, *share(right, len(records)), f"{seconds / len(records):.2f}", *cells]


@options.command(__doc__)
@click.option("--limit", "--n", "limit", type=options.Whole(1), default=80, help="the first N problems of each file")
@options.questions(
    ".json or .jsonl, with answers", several=True, default=HELD_OUT, show_default="those of the embedded model"
)
@options.configs(CONFIGS, "YAML files, a row of the table each")
@click.option("--output", type=options.FILE, default=Path("runs/demo"), help="folder of the tree files")
@options.live
def command(limit: int, questions: tuple[Path, ...], configs: tuple[Path, ...], output: Path, live: bool) -> None:
    loaded = {path: load_config(path) for path in configs}
    first = {file: min(limit, count_questions(file)) for file in questions}
    if len({file.stem for file in first}) < len(questions):
        raise UserError("--questions: files of one name would share the folder of their trees; rename one")
    model = load_model(next(iter(loaded.values())).model_copy(update={"need_value_func": True}))
    head = [*HEAD, *(column.title for column in columns(DEMO).values())]
    for file, n in first.items():
        rows = []
        for path, config in loaded.items():
            trees = output / file.stem / f"{path.stem}.jsonl"
            rows.append(row(trees, search(config, model, file, n, trees, live)))
        print(f"\n{n} problems of {shown(file)}, one answer each\n\n{text_table(head, rows, rule=True)}")
    print(f"{NOTE}\ntrees: {output}/*/*.jsonl")

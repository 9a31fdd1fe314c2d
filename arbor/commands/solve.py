"""Search the questions of a file, one line of a tree file each.

arbor solve --config configs/tiny/sbs_3_5.yaml --questions models/tiny/data/heldout.jsonl
arbor solve --config configs/tiny/mcts.yaml --questions QUESTIONS.jsonl --set iterations=20 --output TREES.jsonl

A run that was stopped goes on with the same command. The embedded model of configs/tiny knows the families of problems
of models/tiny/data and nothing else; --set model_dir=FOLDER names another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from arbor.assembly import describe, load_markup, load_model, open_writer, output_path
from arbor.commands import _cluster
from arbor.commands import _options as options
from arbor.commands._progress import Progress, search_all
from arbor.commands._tracking import TRACKERS, Tracker, check_tracker
from arbor.commands.ask import ask
from arbor.shards import Shard, check_own
from eval.data.questions import count_questions, read_questions
from mcts.errors import UserError
from mcts.question import Question
from models.engines.config import RunConfig, check_run


@dataclass(frozen=True)
class Asked:
    """The first `limit` questions of a file. question_key, answer_key: its columns, where their names are unusual."""

    path: Path
    limit: int | None = None
    question_key: str | None = None
    answer_key: str | None = None

    def count(self, need_answer: bool) -> int:
        """Reads the file through, so that a bad line is found before any work. Raises UserError."""
        total = count_questions(self.path, need_answer=need_answer, **self._columns())
        return min(total, self.limit or total)

    def read(self, need_answer: bool, total: int) -> Iterator[Question]:
        return itertools.islice(read_questions(self.path, need_answer=need_answer, **self._columns()), total)

    def _columns(self) -> dict[str, str | None]:
        return {"question_key": self.question_key, "answer_key": self.answer_key}


def solve(
    config: RunConfig,
    asked: Asked,
    output: Path | None,
    resume: bool,
    shard: Shard | None = None,
    cluster: _cluster.ClusterOptions | None = None,
    live: bool = False,
    track: str | None = None,
) -> Path:
    """Searches questions of a file, or a shard of them, here or on a cluster, and returns the path of their trees.
    Raises UserError."""
    total = asked.count(config.is_sampling)
    load_markup(config)  # what is wrong with its files is found before the model is loaded
    meta = describe(config)
    questions = asked.read(config.is_sampling, total)
    if shard is not None:
        indices, meta["shard"] = shard.describe(questions, config)
        questions = shard.part(asked.read(config.is_sampling, total), config.budget_block)
        total = len(indices)
    path = output or output_path(asked.path, config, meta["fingerprint"], total, resume, shard)
    progress = Progress(total, live=live)
    writer = open_writer(path, meta, progress, resume=resume)
    if shard is not None:
        check_own(path, writer.done, indices, shard)
    if len(writer.done) < total:
        if track is not None:
            progress.tracker = Tracker(track, path.with_suffix(".logs"), meta.get("config", {}))
        if cluster is None:
            search_all(config, load_model(config), questions, writer, meta, progress)
        else:
            _cluster.search_on_cluster(config, cluster, questions, writer, meta, progress)
    writer.finish()  # a run that was killed after its last question left the lines as they came
    print(path)
    progress.conclude(path)
    return path


def print_config(config: RunConfig) -> None:
    import yaml

    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")


@options.command(__doc__)
@options.config()
@options.questions(
    'rows (.jsonl, .json, .csv, .parquet, .gz): "question", and "answer" where it is known', "--question-answer-file"
)
@click.option("--question", metavar="TEXT", help="one question instead, printed step by step (arbor ask)")
@click.option("--question-key", metavar="NAME", help="column of the question  [default: found by its usual names]")
@click.option("--answer-key", metavar="NAME", help="column of the answer  [default: found by its usual names]")
@options.output("tree file  [default: beside the question file; a stopped run's goes on]", required=False)
@options.limit
@options.shard
@_cluster.cluster
@options.live
@click.option("--track", type=click.Choice(list(TRACKERS)), help="log the run; files go into TREES.logs")
@click.option("--report", is_flag=True, help="leave report.html and report.md in TREES.report (arbor report)")
@click.option("--resume/--no-resume", default=True, help="go on with a run that was stopped")
@click.option("--print-config", "shown", is_flag=True, help="print the effective configuration (YAML) and do nothing")
def command(
    config: RunConfig,
    questions: Path | None,
    question: str | None,
    question_key: str | None,
    answer_key: str | None,
    output: Path | None,
    limit: int | None,
    shard: Shard | None,
    cluster: _cluster.ClusterOptions | None,
    live: bool,
    track: str | None,
    report: bool,
    resume: bool,
    shown: bool,
) -> None:
    if shown:
        return print_config(config)
    if (questions is None) == (question is None):
        raise UserError("expected either --questions FILE or --question TEXT")
    check_run(config)
    if track is not None:
        check_tracker(track)
    if question is not None:
        if report:
            raise UserError("--report is of a question file; expected --questions FILE with it")
        return ask(config, question, output, live)
    assert questions is not None
    path = solve(config, Asked(questions, limit, question_key, answer_key), output, resume, shard, cluster, live, track)
    if report:
        from arbor.commands.report import write_report

        print(write_report([path], path.with_suffix(".report")))
    return None

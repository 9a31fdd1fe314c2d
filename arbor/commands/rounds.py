"""Run rounds of self-training: search, grade, make examples, train, evaluate, report; again.

arbor rounds --config configs/rounds/tiny.yaml [--seed 2] [--output DIR]

Every stage is a command of its own, which continues its own unfinished work; a finished stage leaves NAME.done and is
skipped while its inputs stay the same. So the same command goes on wherever it was killed and ends in the same place.
docs/training.md has the keys.
"""

from __future__ import annotations

import sys
from pathlib import Path

from arbor.commands import _cluster
from arbor.commands import _options as options
from arbor.commands._running import when_stopped
from eval.data.questions import count_questions, read_questions
from eval.report.rounds import write_report
from mcts.config import load_keys
from models.training.rounds import COMMANDS, Rounds, Runner, Tools

LIVE = ("solve", "grade-trees", "correct", "train", "rerank", "rank-siblings")  # stages that show what they do


def read_answered(path: Path) -> list[dict[str, object]]:
    """The items of a question file, all of them with an answer. Raises UserError."""
    count_questions(path, need_answer=True)
    return [question.item for question in read_questions(path)]


def tools(cluster: _cluster.ClusterOptions | None = None, live: bool = False) -> Tools:
    """The stages as subcommands of arbor, `live` where they can be; the searches on `cluster`, if there is one."""
    commands = {name: [sys.executable, "-m", "arbor", name] for name in COMMANDS}
    for name in LIVE if live else ():
        commands[name].append("--live")
    commands["solve"] += cluster.words() if cluster is not None else []
    return Tools(commands, read_answered, write_report)


def run(runner: Runner) -> None:
    """Runs or continues rounds, and prints where their report is."""
    with when_stopped(lambda: f"{runner.output} keeps the finished stages, and the same command goes on from there"):
        runner.run()
    print(runner.output / "report.md")


@options.command(__doc__)
@options.keys("YAML of the rounds")
@_cluster.cluster
@options.live
def command(config: Path, overrides: tuple[str, ...], cluster: _cluster.ClusterOptions | None, live: bool) -> None:
    run(Runner(load_keys(Rounds, config, overrides), tools(cluster, live), config.parent))

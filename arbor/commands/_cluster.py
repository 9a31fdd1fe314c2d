"""The options of a run on a Ray cluster, and the run."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from arbor.assembly import choose_seed
from arbor.commands._options import Function, Whole, stacked
from arbor.commands._progress import Progress
from arbor.commands._running import when_stopped
from mcts.errors import UserError
from mcts.question import Question
from mcts.search.driver import is_done
from mcts.trees.file import TreeWriter
from models.engines.config import RunConfig


@dataclass(frozen=True)
class ClusterOptions:
    """address: of the cluster. cpus, gpus: of each engine. engines: at most; None: as many as fit."""

    address: str
    cpus: float
    gpus: float | None
    engines: int | None

    def words(self) -> list[str]:
        """The options as they stand on a command line."""
        words = [f"--ray={self.address}", f"--ray-cpus={self.cpus}"]
        words += [] if self.gpus is None else [f"--ray-gpus={self.gpus}"]
        return words + ([] if self.engines is None else [f"--ray-engines={self.engines}"])


def cluster(function: Function) -> Function:
    """--ray and what belongs to it; the function gets them as `cluster`, None without --ray. Raises UserError."""

    @wraps(function)
    def read(ray: str | None, cpus: float, gpus: float | None, engines: int | None, **others: Any) -> Any:
        if ray is not None and importlib.util.find_spec("ray") is None:
            raise UserError("--ray needs Ray: pip install 'arbor-search[ray]' (requirements-ray.txt)")
        return function(cluster=None if ray is None else ClusterOptions(ray, cpus, gpus, engines), **others)

    words = "searches run on a Ray cluster: host:port, auto, or nothing for this machine's (docs/cluster.md)"
    share, gpus = click.FloatRange(0), "of each engine  [default: 1 where the cluster has any]"
    options = (
        click.option("--ray", is_flag=False, flag_value="local", metavar="[ADDRESS]", help=words),
        click.option("--ray-cpus", "cpus", type=share, default=1.0, help="of each engine and its interpreter"),
        click.option("--ray-gpus", "gpus", type=share, help=gpus),
        click.option("--ray-engines", "engines", type=Whole(1), help="engines at most  [default: as many as fit]"),
    )
    return stacked(read, options)


def search_on_cluster(
    config: RunConfig,
    options: ClusterOptions,
    questions: Iterable[Question],
    writer: TreeWriter,
    meta: dict[str, Any],
    progress: Progress,
) -> None:
    """`search_all` on a cluster: the engines load their models, and this process writes."""
    from arbor.cluster.engine import Answered
    from arbor.cluster.pool import Pool, connected, share_of

    if config.budget_block:
        raise UserError(
            "budget_block shares simulations between questions, which --ray gives to many engines; use --shard"
        )
    missing = (question for question in questions if not is_done(question, writer))

    def write(question: Question, answered: Answered) -> None:
        writer.append_line(question.index, question.text, answered.line)
        progress.tick(answered.seen)

    with when_stopped(lambda: progress.kept(writer.path)), connected(options.address), progress:
        share = share_of(config, options.cpus, options.gpus, options.engines)
        try:
            asyncio.run(Pool(config, meta, choose_seed(config, writer), share).run(missing, write))
        finally:
            writer.close()
    writer.finish()

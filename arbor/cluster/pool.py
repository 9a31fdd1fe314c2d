"""The driver of a run on a Ray cluster: engines come and go, each question is written once.

1. An engine is an actor with a share of CPUs and GPUs. Ray places it; while there are questions to give, one more than
   fit is asked for, so a machine that joins gets engines at once.
2. An engine has at most `in_flight` questions; it gets the next one when a result is on disk. So what is held anywhere
   is bounded, and a slow disk slows the engines.
3. The questions of an engine that died are taken up again by others. One writer, the driver, writes each result. Noise
   depends on (seed, index) alone, so the trees are those of one machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from arbor.cluster.engine import Answered, Engine
from mcts.errors import UserError
from mcts.question import Question
from models.engines.config import RunConfig

DEATHS = 5  # of engines: with the same question in flight, or in a row before one was loaded
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Share:
    """What an engine gets of its machine, and how many engines there may be."""

    cpus: float
    gpus: float
    engines: int | None = None

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


@dataclass(eq=False)
class Member:
    """An engine of the pool. loaded: it may be given questions."""

    actor: Any
    loaded: bool = False
    questions: set[int] = field(default_factory=set)


Work = Callable[[Question, Answered], None]


class Pool:
    """The engines of a run, actors of `kind`. `run` gives them the questions and hands each result to `write`, once."""

    def __init__(
        self, config: RunConfig, meta: dict[str, Any], seed: int, share: Share, kind: type[Engine] = Engine
    ) -> None:
        self._settings = (config, meta, seed)
        self._share = share
        self._in_flight = config.questions_in_flight
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_concurrency": self._in_flight + 4}
        self._kind = ray.remote(kind).options(**options)
        self._members: list[Member] = []
        self._waiting: Member | None = None  # asked for, not placed yet
        self._again: deque[Question] = deque()
        self._deaths = Counter[int]()
        self._failed_starts = 0
        self._tasks: dict[asyncio.Future[Any], tuple[Member, Question | None]] = {}

    async def run(self, questions: Iterable[Question], write: Work) -> None:
        """Raises UserError where engines cannot be loaded or die again and again."""
        source = iter(questions)
        upcoming = next(source, None)
        try:
            while True:
                while (upcoming or self._again) and (member := self._free()) is not None:
                    if self._again:
                        self._give(member, self._again.popleft())
                    elif upcoming is not None:
                        self._give(member, upcoming)
                        upcoming = next(source, None)
                if upcoming or self._again:
                    self._ask_for_one()
                elif all(question is None for _, question in self._tasks.values()):
                    return
                await self._wait(write)
        finally:
            self._end()

    def _free(self) -> Member | None:
        """The loaded engine with the fewest questions, if it may have one more."""
        loaded = [member for member in self._members if member.loaded]
        member = min(loaded, key=lambda one: len(one.questions), default=None)
        return member if member is not None and len(member.questions) < self._in_flight else None

    def _give(self, member: Member, question: Question) -> None:
        member.questions.add(question.index)
        self._watch(member.actor.solve.remote(question), member, question)

    def _ask_for_one(self) -> None:
        """Asks for a further engine, one at a time; Ray starts it where and when its share is free."""
        most = self._share.engines
        if self._waiting is None and (most is None or len(self._members) < most):
            self._waiting = Member(self._kind.remote())
            self._members.append(self._waiting)
            self._watch(self._waiting.actor.placed.remote(), self._waiting, None)

    def _watch(self, ref: Awaitable[Any], member: Member, question: Question | None) -> None:
        async def result() -> Any:
            return await ref

        self._tasks[asyncio.ensure_future(result())] = (member, question)

    async def _wait(self, write: Work) -> None:
        idle = not any(member.loaded for member in self._members)
        timeout = PATIENCE_SECONDS if idle and self._waiting is not None else None
        done, _ = await asyncio.wait(self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            found = ", ".join(f"{_resources().get(name, 0):g} {name}" for name in ("CPU", "GPU"))
            print(f"waiting for the first engine ({self._share}); the cluster has {found}", file=sys.stderr)
        for task in done:
            member, question = self._tasks.pop(task)
            try:
                result = task.result()
            except RayActorError:
                self._lose(member, question)
            except RayTaskError as error:
                raise _cause(error) from None
            else:
                self._take(member, question, result, write)

    def _take(self, member: Member, question: Question | None, result: Any, write: Work) -> None:
        if question is not None:
            member.questions.discard(question.index)
            self._deaths.pop(question.index, None)
            write(question, result)
        elif member is self._waiting:
            self._waiting = None
            self._watch(member.actor.load.remote(*self._settings), member, None)
        else:
            member.loaded, self._failed_starts = True, 0

    def _lose(self, member: Member, question: Question | None) -> None:
        """An engine died: what it had is given to others."""
        if member in self._members:
            self._members.remove(member)
            print(f"an engine died; {len(member.questions)} questions are taken up again", file=sys.stderr)
        member.loaded = False
        if question is not None:
            self._deaths[question.index] += 1
            self._again.append(question)
            if self._deaths[question.index] >= DEATHS:
                raise UserError(f"{question.where}: {DEATHS} engines died while they searched this question")
            return
        self._waiting = None if member is self._waiting else self._waiting
        self._failed_starts += 1
        if self._failed_starts >= DEATHS:
            raise UserError(f"{DEATHS} engines died before their model was loaded; Ray's logs say why (out of memory?)")

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for member in self._members:
            ray.kill(member.actor)


def _cause(error: RayTaskError) -> Exception:
    """What a method of an engine raised, without Ray's account of where."""
    cause: Exception = error.cause if isinstance(error.cause, Exception) else error
    return UserError(str(cause)) if isinstance(cause, UserError) else cause


def _resources() -> dict[str, float]:
    untyped: Any = ray
    found: dict[str, float] = untyped.cluster_resources()
    return found


@contextmanager
def connected(address: str) -> Iterator[None]:
    """In a Ray cluster: that at `address` ("auto": the one that this machine belongs to), or for "local" that one or,
    where there is none, a new one on this machine alone. Raises UserError."""
    _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            None if address == "local" else address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(f"--ray {address}: {str(error).strip().splitlines()[0]}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray puts its own there, which ends the process without a word
    try:
        with redirect_stdout(sys.stderr):  # where Ray says that a node is gone; standard output is the command's
            yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises UserError where nobody listens; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isascii() and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--ray {address}: no cluster there: {getattr(error, 'strerror', None) or error}") from None


def share_of(config: RunConfig, cpus: float, gpus: float | None, engines: int | None) -> Share:
    """gpus: None takes one (or `tensor_parallel_size`) where the cluster has any and the configuration may use it."""
    if gpus is None:
        wanted = int(config.engine_args.get("tensor_parallel_size", 1))
        gpus = wanted if _resources().get("GPU", 0) and config.device != "cpu" else 0
    return Share(cpus, gpus, engines)

"""The searches and completions behind an endpoint: one model, one event loop for its searches, many requests."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from arbor.assembly import describe, open_solver
from arbor.serving.asked import Asked, kind_of
from arbor.serving.completions import Completions
from arbor.serving.decided import Decided
from arbor.serving.limits import Gate, Limits, Refused
from arbor.serving.metrics import Metrics
from mcts.question import Question
from mcts.search.driver import Solver
from mcts.trees.node import NOT_EVALUATED, TOO_LONG, Node
from models.engines.config import RunConfig
from models.engines.queue import Background


@dataclass(frozen=True)
class Step:
    """A step of the solution, decided. value: None where the value head did not judge it."""

    tag: str
    text: str
    value: float | None

    @classmethod
    def of(cls, tag: str, text: str, value: float) -> Step:
        return cls(tag, text, None if value == NOT_EVALUATED else value)


class Service:
    """model: on `config`'s engine. name: of the model, for its own completions."""

    def __init__(self, config: RunConfig, model: Any, name: str, limits: Limits) -> None:
        self.config, self.name, self.limits = config, name, limits
        self.gate, self.metrics = Gate(limits), Metrics()
        self._background = Background("arbor")
        self._stack = AsyncExitStack()
        self.completions = Completions(model, name)
        opened = open_solver(config, model, describe(config), 0)
        self._solver: Solver = self._background.call(self._stack.enter_async_context(opened))
        self.step_delim: str = self._solver.markup.step_delim

    def close(self) -> None:
        """Ends the processes that run code, and the loop."""
        self._background.call(self._stack.aclose())
        self._background.stop()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The engine's own reply. Raises Refused."""
        try:
            async with self.gate.place(), asyncio.timeout(self.limits.search_seconds):
                reply = await self._background.run(self.completions.answer(body))
        except TimeoutError:
            seconds = self.limits.search_seconds
            raise Refused(504, f"not done within {seconds:g} s; expected fewer or shorter choices", "timeout") from None
        except Refused:
            raise
        except Exception as error:
            raise _failed(error) from error
        self.metrics.count("arbor_tokens_total", reply["usage"]["completion_tokens"], kind="generated")
        return reply

    async def search(self, asked: Asked) -> AsyncGenerator[Step | dict[str, Any] | None]:
        """None when the search begins, the steps of the solution as they are decided, and at last the record of the
        question. A consumer that is slow holds no place; when it leaves, the search is cancelled. Raises Refused."""
        found = asyncio.Queue[Step | str]()
        work = asyncio.create_task(self._placed(asked, found))
        work.add_done_callback(lambda done: found.put_nowait("end"))
        sent: list[str] = []
        try:
            while (step := await found.get()) != "end":
                if isinstance(step, Step):
                    sent.append(step.tag)
                yield step if isinstance(step, Step) else None
            record = await work
        except Refused:
            raise
        except Exception as error:
            raise _failed(error) from error
        finally:
            work.cancel()
        if record["meta"].get("no_answer") == TOO_LONG:
            raise Refused(400, "the question is too long for the model's window", "context_length_exceeded")
        self._count(asked, record)
        for step in solution(record)[len(sent) :]:
            yield step
        yield record

    async def _placed(self, asked: Asked, found: asyncio.Queue[Step | str]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()

        def emit(step: Step) -> None:
            loop.call_soon_threadsafe(found.put_nowait, step)

        async with self.gate.place():
            found.put_nowait("begun")
            return await self._background.run(self._solve(asked, emit))

    async def _solve(self, asked: Asked, emit: Callable[[Step], None]) -> dict[str, Any]:
        decided = Decided()

        def watch(node: Node) -> None:
            for step in decided.see(node):
                emit(Step.of(step.tag, step.text, step.value))

        seed = secrets.randbits(32) if asked.config.seed is None else asked.config.seed
        meta = self._solver.meta | {"config": asked.config.model_dump(mode="json", exclude_defaults=True)}
        meta.pop("fingerprint", None)  # of the server's own configuration
        watcher = watch if asked.config.n_runs == 1 and asked.stream else None
        solver = replace(self._solver, config=asked.config, seed=seed, watcher=watcher, meta=meta)
        return await solver.solve(Question(0, {"question": asked.question}, "the request"))

    def _count(self, asked: Asked, record: dict[str, Any]) -> None:
        answered = "found" if record["prediction"] else "none"
        self.metrics.count("arbor_answers_total", kind=kind_of(asked.name), answer=answered)
        for kind in ("computed", "reused", "generated"):
            self.metrics.count("arbor_tokens_total", record["meta"][f"tokens_{kind}"], kind=kind)


def _failed(error: Exception) -> Refused:
    """A fault of ours or of the model: the client hears of it, the log has where."""
    logging.getLogger(__name__).error("a request failed", exc_info=error)
    return Refused(500, f"{type(error).__name__}: {error}", "server_error")


def solution(record: dict[str, Any]) -> list[Step]:
    """The steps of the solution that a record decided for; none without an answer."""
    prediction = record["prediction"]
    if prediction is None:
        return []
    tree = [record["react"], *record.get("runs", [])][prediction["run"]]
    tags = prediction["tag"].split(".")
    path = [".".join(tags[: depth + 1]) for depth in range(1, len(tags))]
    return [Step.of(tag, tree[tag]["text"], tree[tag]["value"]) for tag in path]

"""Solving questions from Python: one, or a stream of them, blocking or awaited."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from arbor.assembly import describe, open_solver
from arbor.methods import Search
from arbor.model import Model
from arbor.result import Result
from eval.data.questions import read_question
from mcts.config import check_search, make_keys
from mcts.errors import UserError
from mcts.question import Question
from models.engines.config import RunConfig

Asked = str | Mapping[str, Any] | tuple[str, Any] | Question
"""A question: its text, an object with `question` and perhaps `answer`, a pair (text, answer), or a `Question`."""


class Solver:
    """Searches with one model by one method. A context manager: it holds the processes that run the model's code.

    model: from `load_model`; several solvers may share it.
    method: `Greedy`, `Sampling`, `StepBeam`, `MCTS` or `Method`.
    seed: origin of all noise; the same seed, question and index give the same tree. settings: further keys of a
    configuration (docs/configuration.md), such as `max_depth=12`, which win over those of model and method.

    Raises UserError for keys that are unknown or do not fit together, and where code cannot be confined as asked.
    """

    def __init__(self, model: Model, method: Search, *, seed: int = 0, **settings: Any) -> None:
        placed = model.config.model_dump(exclude_defaults=True, include=set(_PLACED))
        keys = model.defaults | method.keys() | placed | settings | {"seed": seed}
        self.model, self.config = model, make_keys(RunConfig, keys, f"{type(method).__name__} with {settings}")
        check_search(self.config)
        if self.config.budget_block:
            raise UserError("budget_block needs to know all questions: use the command `arbor solve`")
        if self.config.need_value_func and self.config.value_from == "head" and not model.config.need_value_func:
            raise UserError(
                f"{type(method).__name__} needs a value head, and the model was loaded without one: "
                "load_model(value_head=True), or value_from='majority'"
            )
        self._opened = open_solver(self.config, model.language_model, describe(self.config), seed)
        self._solver = model.background.call(self._opened.__aenter__())

    def __enter__(self) -> Solver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes that run code."""
        self.model.background.call(self._opened.__aexit__(None, None, None))

    def solve(self, question: Asked, answer: Any = None, *, index: int = 0) -> Result:
        """Searches one question and blocks until it is done.

        answer: the accepted answer, or a list of them: for grading, and for the rewards of a training search.
        index: the question's place in its series, which the noise depends on. Raises UserError for what is no question.
        """
        return self._finish(self._submit(as_question(question, answer, index)))

    async def solve_async(self, question: Asked, answer: Any = None, *, index: int = 0) -> Result:
        """`solve`, awaited from any event loop, such as a notebook's."""
        return await asyncio.wrap_future(self._submit(as_question(question, answer, index)))

    def solve_all(self, questions: Iterable[Asked], *, in_flight: int = 64) -> Iterator[Result]:
        """The results as they finish, at most `in_flight` questions at a time; `questions` is read as slots come free.

        `result.index` is the place of a question in `questions`, whatever order they finish in.
        """
        source = (as_question(one, None, index) for index, one in enumerate(questions))
        running: set[concurrent.futures.Future[Result]] = set()
        try:
            while True:
                while len(running) < in_flight and (question := next(source, None)) is not None:
                    running.add(self._submit(question))
                if not running:
                    return
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in sorted(done, key=_index):
                    yield future.result()
        finally:
            for future in running:
                future.cancel()

    async def solve_all_async(
        self, questions: Iterable[Asked] | AsyncIterable[Asked], *, in_flight: int = 64
    ) -> AsyncIterator[Result]:
        """`solve_all`, awaited: `async for result in solver.solve_all_async(questions)`."""
        source = _numbered(questions)
        running: set[asyncio.Future[Result]] = set()
        try:
            while True:
                while len(running) < in_flight and (question := await anext(source, None)) is not None:
                    running.add(asyncio.wrap_future(self._submit(question)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()

    def _submit(self, question: Question) -> concurrent.futures.Future[Result]:
        return self.model.background.submit(self._solve(question))

    async def _solve(self, question: Question) -> Result:
        return Result(await self._solver.solve(question))

    @staticmethod
    def _finish(future: concurrent.futures.Future[Result]) -> Result:
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: the search ends, too
            future.cancel()
            raise


_PLACED = ("model_dir", "engine", "engine_args", "device", "dtype", "max_rows")


def _index(future: concurrent.futures.Future[Result]) -> int:
    return -1 if future.cancelled() or future.exception() else future.result().index


async def _numbered(questions: Iterable[Asked] | AsyncIterable[Asked]) -> AsyncIterator[Question]:
    index = 0
    if isinstance(questions, AsyncIterable):
        async for one in questions:
            yield as_question(one, None, index)
            index += 1
    else:
        for one in questions:
            yield as_question(one, None, index)
            index += 1


def as_question(asked: Asked, answer: Any, index: int) -> Question:
    """Raises UserError for what is no question, or no answer."""
    where = f"question {index}"
    if isinstance(asked, Question):
        item = dict(asked.item)
        index, where = asked.index, asked.where
    elif isinstance(asked, str):
        item = {"question": asked}
    elif isinstance(asked, Mapping):
        item = dict(asked)
    elif isinstance(asked, tuple) and len(asked) == 2:
        item = {"question": asked[0], "answer": asked[1]}
    else:
        raise UserError(f"{where}: expected a text, an object or a pair (text, answer), found {type(asked).__name__}")
    if answer is not None:
        item["answer"] = answer
    return read_question(index, item, where)

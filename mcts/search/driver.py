"""Searches many questions at once: one coroutine a question, as many in flight as the configuration says."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mcts.config import Config
from mcts.errors import UserError
from mcts.interpreter import Interpreter
from mcts.markup import Markup
from mcts.model import Context, LanguageModel, Usage
from mcts.question import Question
from mcts.search.budget import SharedBudget
from mcts.search.expansion import Counts, Expander, Grader, Watcher
from mcts.search.rules import path_value
from mcts.search.search import Search
from mcts.search.voting import Candidate, decide
from mcts.trees.file import SCHEMA, TreeWriter
from mcts.trees.node import NOT_EVALUATED, solution_text, walk
from mcts.trees.record import to_record


@dataclass
class Solver:
    """Everything that a search needs, and the solving of one question.

    meta: what is written beside every tree (model, versions). watcher: called for each new node.
    shared: what questions leave of their budgets, where `budget_block` says so.
    """

    config: Config
    model: LanguageModel
    markup: Markup
    interpreter: Interpreter
    grader: Grader | None = None
    seed: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    watcher: Watcher | None = None
    shared: SharedBudget | None = None

    async def solve(self, question: Question) -> dict[str, Any]:
        """The record of a question: the item, its tree(s), the prediction and what it cost."""
        started = time.monotonic()
        prompt = self._expander(question, 0).prompt(question.text)
        runs = await asyncio.gather(*(self._search(question, run, prompt) for run in range(self.config.n_runs)))
        record: dict[str, Any] = {**question.item, "react": runs[0].record}
        if len(runs) > 1:
            record["runs"] = [run.record for run in runs[1:]]
        record["prediction"] = await self._predict(question, runs)
        record["schema"] = SCHEMA
        record["meta"] = self._describe(question, runs, self._usage(prompt), time.monotonic() - started)
        if record["prediction"] is None:
            record["meta"]["no_answer"] = _why_not(runs)
        return record

    def _expander(self, question: Question, run: int) -> Expander:
        key = (self.seed, question.index, run)
        return Expander(self.config, self.model, self.markup, self.interpreter, key, self.watcher)

    async def _search(self, question: Question, run: int, prompt: Context) -> _Run:
        expander = self._expander(question, run)
        grader = expander.counts.timed(self.grader)
        search = Search(expander, expander.root(question.text, prompt), question.answers, grader)
        left = await self._run(search, self.config.max_total_time)
        budget = None
        if self.shared is not None:
            left, budget = await self._settle(question.index, search, left)
        if left > 0 and self.config.method.conclude is not None:
            left = await self._run(search, left, self.config.method.conclude)
        result = self._record(question, search)
        rule = self.config.path_value
        candidates = [Candidate(node.final_answer, path_value(node, rule), node.tag, run) for node in search.solutions]
        failures = Counter(node.reason for node in walk(search.root) if node.reason)
        for node in walk(search.root):
            node.release()
            node.parent = None  # no cycle: the memory goes at once
        return _Run(
            result, candidates, expander.counts, failures, search.root.reason, left <= 0, search.stopped, budget
        )

    async def _run(
        self, search: Search, seconds: float, work: Callable[[Search], Awaitable[None]] | None = None
    ) -> float:
        """Searches for at most `seconds`; what is left of them, 0 where they did not suffice."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                await (work or self.config.method.search)(search)
        except TimeoutError:
            return 0.0
        return max(1e-3, seconds - (time.monotonic() - started))

    async def _settle(self, index: int, search: Search, seconds: float) -> tuple[float, dict[str, Any]]:
        """Hands in what the search left of its budget; one that is still open goes on with its share, for `seconds`.
        Returns the seconds left then, and what is written down of it."""
        assert self.shared is not None
        unspent = search.budget - search.expander.counts.simulations
        still_open = seconds > 0 and not unspent and not search.root.closed
        self.shared.settle(index, unspent, still_open)
        share = await self.shared.share(index) if still_open else 0
        if share:
            search.budget += share
            seconds = await self._run(search, seconds)
        return seconds, {"unspent": unspent, "still_open": still_open, "share": share}

    def _usage(self, prompt: Context) -> Usage:
        report = getattr(self.model, "usage", None)
        usage = report(prompt) if report is not None else Usage()
        assert isinstance(usage, Usage)
        return usage

    def _record(self, question: Question, search: Search) -> dict[str, Any]:
        record = to_record(search.root, searched=self.config.method.statistics)
        if self.config.method.lists_solutions:
            record["solutions"] = [
                {
                    "question": question.text,
                    "ground_truth": None,  # a beam is never told the answer
                    "value": int(NOT_EVALUATED) if node.value == NOT_EVALUATED else node.value,
                    "final_answer": node.final_answer,
                    "solution": solution_text(node, self.markup.step_delim),
                    "tag": node.tag,
                }
                for node in search.solutions
            ]
        return record

    async def _predict(self, question: Question, runs: list[_Run]) -> dict[str, Any] | None:
        """Each run decides by `vote`; several runs decide by a majority of their decisions."""
        picks: list[Candidate] = []
        grader = runs[0].counts.timed(self.grader)
        for run in runs:
            if (own := await decide(run.candidates, self.config.vote, grader)) is not None:
                if len(runs) == 1:
                    return await _judge(grader, question, asdict(own))
                value = next(one.value for one in run.candidates if one.tag == own.tag)
                picks.append(Candidate(own.final_answer, value, own.tag, own.run))
        decision = await decide(picks, "majority", grader)
        return None if decision is None else await _judge(grader, question, asdict(decision))

    def _describe(self, question: Question, runs: list[_Run], usage: Usage, seconds: float) -> dict[str, Any]:
        counts: dict[str, Any] = asdict(usage)
        for run in runs:
            for key, amount in asdict(run.counts).items():
                counts[key] = counts.get(key, 0) + amount
        counts |= {key: round(amount, 6) for key, amount in counts.items() if key.endswith("_seconds")}
        failures = sum((run.failures for run in runs), Counter[str]())
        return {
            "index": question.index,
            "seed": self.seed,
            **self.meta,
            "timed_out": any(run.timed_out for run in runs),
            **({"failures": dict(failures)} if failures else {}),
            **({"stopped": stopped} if (stopped := [run.stopped for run in runs if run.stopped]) else {}),
            **({"budget": runs[0].budget} if runs[0].budget else {}),
            **counts,
            "wall_seconds": round(seconds, 6),
        }


@dataclass
class _Run:
    record: dict[str, Any]
    candidates: list[Candidate]
    counts: Counts
    failures: Counter[str]
    reason: str  # why the root could not be expanded
    timed_out: bool
    stopped: str | None
    budget: dict[str, Any] | None


async def _judge(grader: Grader | None, question: Question, prediction: dict[str, Any]) -> dict[str, Any]:
    """Adds whether the answer is right, where the question comes with its answer (null: undecided)."""
    if question.answers and grader is not None:
        prediction["correct"] = await grader(question.answers, prediction["final_answer"])
    return prediction


def _why_not(runs: Sequence[_Run]) -> str:
    """Why no run found an answer: the search could not begin, ran out of time, or its commonest failure."""
    for run in runs:
        if run.reason:
            return run.reason
    if any(run.timed_out for run in runs):
        return "out of time"
    failures = sum((run.failures for run in runs), Counter[str]())
    return failures.most_common(1)[0][0] if failures else "budget spent"


async def solve_all(
    solver: Solver, questions: Iterable[Question], in_flight: int
) -> AsyncIterator[tuple[Question, dict[str, Any]]]:
    """The records of `questions` as they finish, with `in_flight` searches at a time.

    `questions` is read as slots come free, so memory is bounded by what is in flight. The first error stops all.
    """
    source = _entering(questions, solver.shared)
    running: dict[asyncio.Task[dict[str, Any]], Question] = {}
    try:
        while True:
            while len(running) < in_flight and (question := next(source, None)) is not None:
                running[asyncio.create_task(solver.solve(question))] = question
            if not running:
                return
            finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                yield running.pop(task), task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _entering(questions: Iterable[Question], shared: SharedBudget | None) -> Iterator[Question]:
    """`questions`, each once the next one is known: a shared budget has to hear when a block is whole."""
    upcoming: Question | None = None
    for question in questions:
        if shared is not None:
            shared.enter(question.index)
            if upcoming is not None:
                yield upcoming
            upcoming = question
        else:
            yield question
    if shared is not None:
        shared.close()
    if upcoming is not None:
        yield upcoming


async def run_file(
    solver: Solver,
    questions: Iterable[Question],
    writer: TreeWriter,
    in_flight: int,
    tick: Callable[[dict[str, Any]], None],
) -> None:
    """Solves what `writer` does not hold yet; every record is on disk before `tick` hears of it."""
    if solver.config.budget_block:
        solver.shared = SharedBudget(solver.config.budget_block)
        for index, budget in writer.budgets.items():
            solver.shared.settle(index, budget["unspent"], budget["still_open"])
    missing = (question for question in questions if not is_done(question, writer))
    try:
        async for question, record in solve_all(solver, missing, in_flight):
            writer.append(question.index, record)
            tick(record)
    finally:
        writer.close()
    writer.finish()


def is_done(question: Question, writer: TreeWriter) -> bool:
    """Whether `writer` holds the question. Raises UserError where it holds another one at its place."""
    done = writer.done.get(question.index)
    if done is not None and done != question.text:
        raise UserError(
            f"{question.where}: {writer.path} holds another question at this place; choose another --output"
        )
    return done is not None

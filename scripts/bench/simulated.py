"""A simulated 7B model: 20 ms a decoding step for all that runs, and code that sleeps. Time, but no work."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field

from mcts.interpreter import Execution, State
from mcts.model import Context, Expansion, Sampling
from scripts.bench import scripted

STEP_SECONDS = 0.020


class SleepingInterpreter:
    """`Interpreter` whose snippets, sleep(SECONDS), take as long as they say and no core, any number at a time. What
    the real one costs is measured in interpreter.py and lockstep.py."""

    async def run(self, state: State | None, code: str) -> Execution:
        seconds = float(code.partition("sleep(")[2].partition(")")[0])
        await asyncio.sleep(seconds)
        return Execution("done", None, seconds, False)


@dataclass
class _Request:
    lengths: list[int]  # of its samples, in tokens
    done: asyncio.Future[None]
    decoded: int = 0

    def running(self) -> int:
        return sum(length > self.decoded for length in self.lengths)


@dataclass
class SimulatedModel:
    """`LanguageModel` with a real batch loop: requests are admitted at every step while there is room, a step takes
    20 ms whatever its batch, a request returns when its last sample has ended. Values come with the prefill.

    max_rows: samples decoded together. code_seconds: snippets sleep between 1 ms and this.
    engine_seconds: 20 ms for each step in which anything ran. chains: question → the time that its simulations, one
    after another, would take alone: of each the longest sample and the longest snippet.
    """

    max_rows: int = 1 << 20
    code_seconds: float = 2.0
    engine_seconds: float = 0.0
    chains: dict[object, float] = field(default_factory=dict)
    _waiting: deque[_Request] = field(default_factory=deque)
    _running: list[_Request] = field(default_factory=list)
    _loop: asyncio.Task[None] | None = None

    def encode(self, text: str) -> tuple[int, ...]:
        return (len(text),)

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        drawn = random.Random(repr(params.key))
        lengths = [drawn.randint(20, 60) for _ in range(n)]
        sleeps = [drawn.uniform(0.001, self.code_seconds) for _ in range(n)]
        question = params.key[:-1]
        chain = max(lengths) * STEP_SECONDS + max(sleeps)
        self.chains[question] = self.chains.get(question, 0.0) + chain
        await self._decode(lengths)
        samples = [
            scripted.sample(scripted.code_step(f"sleep({seconds:.3f})  # {index}"), -length / 5)
            for index, (seconds, length) in enumerate(zip(sleeps, lengths, strict=True))
        ]
        return Expansion(drawn.uniform(-1, 1), tuple(samples))

    async def evaluate(self, context: Context) -> float:
        return 0.0

    async def _decode(self, lengths: list[int]) -> None:
        request = _Request(lengths, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._serve())
        await request.done

    async def _serve(self) -> None:
        while self._waiting or self._running:
            room = self.max_rows - sum(request.running() for request in self._running)
            while self._waiting and len(self._waiting[0].lengths) <= room:
                room -= len(self._waiting[0].lengths)
                self._running.append(self._waiting.popleft())
            await asyncio.sleep(STEP_SECONDS)
            self.engine_seconds += STEP_SECONDS
            for request in self._running:
                request.decoded += 1
                if not request.running():
                    request.done.set_result(None)
            self._running = [request for request in self._running if request.running()]
            await asyncio.sleep(0)  # those who got an answer ask the next question before the next step

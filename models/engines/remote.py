"""What engines share that compute one request a sample, in an event loop of their own (vLLM, a server)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from mcts.model import Context, ContextTooLong, Conversation, Expansion, Sample, Sampling, Usage
from models.engines.queue import Background
from models.engines.text import Tokenizer
from models.engines.usage import UsageCounter

T = TypeVar("T")


class RemoteModel(ABC):
    """`LanguageModel` by requests of one sample each. window: of the model, in tokens; 0: unknown."""

    window: int = 0

    def __init__(self, tokenizer: Any, name: str) -> None:
        """tokenizer: of transformers. name: of the thread with the event loop."""
        self.tokenizer = Tokenizer(tokenizer)
        self.counter = UsageCounter()
        self._thread = Background(name)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode(text)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode_start(text)

    def encode_chat(self, chat: Conversation) -> tuple[int, ...]:
        return self.tokenizer.encode_chat(chat)

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        self._check_length(context)
        limit = min(params.max_tokens, self.window - context.length) if self.window else params.max_tokens
        draws = n if params.temperature > 0 else min(n, 1)  # the most likely sample is always the same
        results = await self._run(self._sample_all(context, draws, params, limit))
        samples = tuple(sample for sample, _ in results)
        return Expansion(results[0][1] if results else None, samples if draws == n else samples * n)

    async def evaluate(self, context: Context) -> float:
        self._check_length(context)
        return await self._run(self._evaluate(context))

    def usage(self, root: Context) -> Usage:
        """What was done for all prompts that begin with `root`, as far as the engine reports it."""
        return self.counter.usage(root)

    @property
    def totals(self) -> Usage:
        return self.counter.totals

    def _check_length(self, context: Context) -> None:
        if self.window and context.length >= self.window:
            raise ContextTooLong(f"{context.length} tokens leave no room in a window of {self.window}")

    async def _sample_all(
        self, context: Context, n: int, params: Sampling, limit: int
    ) -> list[tuple[Sample, float | None]]:
        return await asyncio.gather(*(self._sample(context, index, params, limit) for index in range(n)))

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work` in the engine's loop; cancelling the waiting cancels the work."""
        return await self._thread.run(work)

    @abstractmethod
    async def _sample(self, context: Context, index: int, params: Sampling, limit: int) -> tuple[Sample, float | None]:
        """Sample `index` of a context, of at most `limit` tokens, and the context's value."""

    @abstractmethod
    async def _evaluate(self, context: Context) -> float:
        """The value of a context. Raises UserError where there is none."""

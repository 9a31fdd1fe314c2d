"""Simulations that questions leave unspent, given to those of the same block that are still open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class _Block:
    waiting: set[int] = field(default_factory=set)  # questions whose own budget is not spent yet
    unspent: int = 0
    still_open: set[int] = field(default_factory=set)
    whole: bool = False  # every question of the block is known
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class SharedBudget:
    """Blocks of `size` consecutive questions (by index). A question enters its block, settles when its own budget is
    spent or it is done, and then, where it is still open, waits for its share: what all others of the block left,
    divided evenly, the rest to the first. So a share depends on the questions of the block alone, not on timing.

    The price: an open question waits for the slowest one of its block.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._blocks: dict[int, _Block] = {}

    def enter(self, index: int) -> None:
        """A question that is going to be searched. Questions enter by index: earlier blocks are now whole."""
        self._block(index).waiting.add(index)
        for number in [number for number in self._blocks if number < index // self.size]:
            self._complete(number)

    def close(self) -> None:
        """No further question enters."""
        for number in list(self._blocks):
            self._complete(number)

    def settle(self, index: int, unspent: int, still_open: bool) -> None:
        """What a question left of its own budget, now or in a run before this one."""
        block = self._block(index)
        block.waiting.discard(index)
        block.unspent += unspent
        if still_open:
            block.still_open.add(index)
        self._release(block)

    async def share(self, index: int) -> int:
        """The further simulations of a question that settled as still open."""
        block = self._block(index)
        await block.ready.wait()
        each, rest = divmod(block.unspent, len(block.still_open))
        return each + (sorted(block.still_open).index(index) < rest)

    def _block(self, index: int) -> _Block:
        return self._blocks.setdefault(index // self.size, _Block())

    def _complete(self, number: int) -> None:
        self._blocks[number].whole = True
        self._release(self._blocks[number])

    @staticmethod
    def _release(block: _Block) -> None:
        if block.whole and not block.waiting:
            block.ready.set()

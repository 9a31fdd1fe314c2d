"""The states that there are, as a tree: how each was made, and what is known of its code."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

from mcts.interpreter.process import Process
from mcts.interpreter.values import NO_VALUES

_LIGHT = """
bisect calendar cmath collections copy datetime decimal fractions functools heapq itertools json math numbers operator
os random re signal statistics string sys time typing
"""
LIGHT_MODULES = frozenset(_LIGHT.split())
"""A path that imports nothing else is forked from a process without the large modules, whose forks copy less."""
IMPORTS = re.compile(r"(?:\bfrom\s+([\w.]+)\s+)?\bimport\b([^\n;#]*)")


class Node:
    """A state in the tree of states: how to make it, and its process while it has one."""

    __slots__ = (
        "__weakref__", "bytes", "code", "differs", "forked", "held", "mark", "parent", "pins", "process", "root",
        "seconds", "twin", "values", "waiting",
    )  # fmt: skip

    def __init__(
        self, parent: Node | None, code: str, mark: int = 0, process: Process | None = None, seconds: float = 0.0
    ) -> None:
        self.parent, self.code, self.process = parent, code, process
        self.seconds = seconds  # that its path took, from the root on
        self.mark = mark  # of how the code ended the first time
        self.differs = False  # it ended in another way when it was run again
        self.root: Node = parent.root if parent is not None else self
        self.twin: Node | None = None  # the same state below the other root
        self.values = NO_VALUES if parent is None else None  # all that it is: below the root it has no process then
        self.held, self.pins, self.bytes = False, 0, 0  # has a State; must not be evicted; size of its process
        self.waiting = 0  # runs that have no process yet
        self.forked: asyncio.Event | None = None  # all of them but one have theirs

    def alive(self) -> bool:
        if self.values is not None and self.parent is not None:
            return True
        return self.process is not None and self.process.alive()

    def wait(self, runs: int) -> None:
        """Count `runs` more, or less, that need its process."""
        self.waiting += runs
        if self.forked is not None and self.waiting <= 1:
            self.forked.set()

    async def last(self) -> None:
        """Wait until no other run needs its process."""
        if self.waiting > 1:
            self.forked = asyncio.Event()
            await self.forked.wait()

    def path(self) -> Iterator[Node]:
        """This node and all that it comes from."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


def is_light(code: str) -> bool:
    """Whether all that the code imports is loaded in the light zygote. Where that is not plain, it is not."""
    imports = IMPORTS.findall(code)
    names = [module or part.split()[0] for module, parts in imports for part in parts.split(",") if part.strip()]
    hidden = "__import__" in code or "importlib" in code
    return not hidden and all(name.partition(".")[0] in LIGHT_MODULES for name in names)


_ADDRESS = re.compile(r"\b0x[0-9a-f]+\b")


def mark_of(observation: str, failed: bool) -> int:
    """By what two runs of a snippet are told apart: what was observed, addresses in memory aside, and how it ended."""
    return hash((_ADDRESS.sub("", observation), failed))

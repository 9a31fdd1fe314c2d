"""What the search expects of a code interpreter: the port that `ForkInterpreter` implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class InterpreterError(RuntimeError):
    """The interpreter cannot start, or is used from two event loops at once."""


class State:
    """Opaque handle of a Python state after a snippet. The state lives as long as somebody holds the handle;
    whether its process is alive or has to be rebuilt by replay is the interpreter's business.

    shared: several holders run code from it on their own account.
    runs_left: how many more snippets will be run from it; None: nobody has said so.
    """

    __slots__ = ("__weakref__", "node", "runs_left", "shared")

    def __init__(self, node: object) -> None:
        self.node, self.shared = node, False
        self.runs_left: int | None = None

    def announce(self, runs: int) -> None:
        """Say that `runs` more snippets will be run from it and no others. The last one may take the state's process
        for its own: a state that is needed later all the same is rebuilt by replay."""
        self.runs_left = None if self.shared else runs

    def is_last(self) -> bool:
        """Count a run. Whether no other will follow."""
        if self.runs_left is not None:
            self.runs_left -= 1
        return self.runs_left == 0


@dataclass(frozen=True)
class Execution:
    """What came of one snippet.

    observation: what the model reads, by the rules of the interpreter's profile.
    state: the state after the snippet. After a killed snippet: the state before it (None: fresh).
    seconds: wall time of the snippet itself, without waiting and forking.
    failed: an exception, a timeout or a kill.
    replay_differs: the state before the snippet had lost its process, and its code ended differently when it was run
        again (another observation, an exception, a kill), so it may not be the state that its path shows.
    """

    observation: str
    state: State | None
    seconds: float
    failed: bool
    replay_differs: bool = False


class Interpreter(Protocol):
    """Runs snippets. May be awaited from any number of coroutines of one event loop at once."""

    async def run(self, state: State | None, code: str) -> Execution:
        """Run `code` in a copy of `state` (None: a fresh one). `state` itself never changes."""

"""What an endpoint lets clients ask for, and who may ask next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


class Refused(Exception):
    """A request that is not answered. status: of HTTP; code: a word for programs; the message is for people."""

    def __init__(self, status: int, message: str, code: str = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


@dataclass(frozen=True)
class Limits:
    in_flight: int = 16
    """Requests that are computed at a time."""
    queue: int = 256
    """Requests that wait for one of these places; the next one is refused (429)."""
    wait_seconds: float = 120.0
    """How long a request waits for its place; then it is refused (503)."""
    search_seconds: float = 120.0
    """Seconds a search at most; what is found by then is the answer."""
    samples: int = 4096
    """Steps that one request may sample at most, by its parameters."""
    body_bytes: int = 4 << 20
    """Length of a request's body (413)."""
    read_seconds: float = 20.0
    """How long a client may take to send its body (408)."""
    write_seconds: float = 60.0
    """How long a client may take to accept a part of the reply; then the connection is closed."""

    @property
    def open_requests(self) -> int:
        """Requests whose bodies are held at a time, before they are checked."""
        return self.in_flight + self.queue + 64


class Gate:
    """`in_flight` requests pass at a time, `queue` wait in order. Belongs to one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.closing = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the running. Raises Refused."""
        if self.closing:
            raise _closing()
        if self.running >= self.limits.in_flight or self._waiting:
            await self._wait()
        else:
            self.running += 1
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        if self.waiting >= self.limits.queue:
            raise Refused(429, f"{self.waiting} requests wait already; try again later", "busy")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self.limits.wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._pass_on()  # the place came at the same moment
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Refused(503, f"no place within {self.limits.wait_seconds:g} s; try again later", "busy") from None
            raise

    def _pass_on(self) -> None:
        """Gives a place to the next that waits, or back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    def close(self) -> None:
        """Refuses who waits and who comes; who runs may finish."""
        self.closing = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(_closing())


def _closing() -> Refused:
    return Refused(503, "the server is shutting down", "shutting_down")

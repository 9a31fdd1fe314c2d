"""A process of the server, seen from outside: a socket, and a descriptor through which it is signalled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys

PACKET_BYTES = 200_000
BURIALS = 10_000  # in one packet
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


ENDS = {
    int(signal.SIGKILL): "ProcessError: the snippet was killed: too many processes, or no memory left",
    int(signal.SIGXCPU): "TimeoutError: the snippet used too much processor time",
}


class Gone(Exception):
    """The other end of a socket is closed."""


async def readable(source: socket.socket | int) -> None:
    """Wait until there is something to read."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(source, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(source)


def proc(name: str) -> str:
    """A file of /proc. Raises OSError."""
    descriptor = os.open(f"/proc/{name}", os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 16).decode(errors="replace")
    finally:
        os.close(descriptor)


def available_bytes() -> int:
    """Memory that the machine can still give."""
    return int(proc("meminfo").partition("MemAvailable:")[2].split()[0]) * 1024


class Process:
    """A state's process. It runs while somebody needs it (`resume`, `pause`), otherwise it is stopped: threads that a
    snippet left behind stop with it. Its pid is the kernel's word, not its own."""

    def __init__(self, channel: socket.socket, parent: Process | None = None) -> None:
        channel.setblocking(False)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.channel, self.parent = channel, parent
        self.name = 0  # how it calls itself: good for its burial, and for nothing else
        self.dead: list[int] = []  # names of children whose end has been noted
        self.pid, self.pidfd, self.inner, self.users = 0, -1, 0, 0
        self.fork_only = False  # it holds what a fork would leave behind
        self.seconds = 0.0  # of snippets that it ran for others

    def read(self) -> bytes | None:
        """One packet; None: nothing there yet. The first one tells who sends. Raises Gone."""
        try:
            data, ancillary, _, _ = self.channel.recvmsg(PACKET_BYTES, socket.CMSG_SPACE(12))
            if self.pidfd < 0 and data:
                pid = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
                self.pidfd, self.pid = os.pidfd_open(pid), pid
        except BlockingIOError:
            return None
        except (OSError, IndexError) as error:
            raise Gone from error
        if not data:
            raise Gone
        return data

    async def receive(self) -> bytes:
        """The next packet. Raises Gone."""
        while (data := self.read()) is None:
            await readable(self.channel)
        return data

    def send(self, data: bytes, *descriptors: int) -> None:
        """Raises Gone where the process does not take it."""
        try:
            socket.send_fds(self.channel, [data], descriptors)
        except OSError as error:
            raise Gone from error

    def alive(self) -> bool:
        if self.pidfd < 0:
            return False
        end = select.poll()
        end.register(self.pidfd, select.POLLIN)
        return not end.poll(0)

    def same_as_a_fork(self) -> bool:
        """Whether a snippet would find here what it finds in a fork: no threads, and nothing unread or pending."""
        with contextlib.suppress(OSError, Gone):
            return not self.fork_only and os.stat(f"/proc/{self.pid}/task").st_nlink == 3 and self.read() is None
        return False

    async def wait_status(self, seconds: float) -> int | None:
        """How the process ended, as `wait` tells it; None where it has not, or where nobody knows."""
        with contextlib.suppress(TimeoutError, OSError, ValueError):
            async with asyncio.timeout(seconds):
                await readable(self.pidfd)
            return int(proc(f"{self.pid}/stat").split()[-1])
        return None

    def command(self, request: object, *channel: int) -> None:
        """Have it run what is requested or, where there is a `channel`, a child that serves on that; and bury the dead.
        Raises Gone."""
        dead, self.dead = self.dead[:BURIALS], self.dead[BURIALS:]
        self.send(json.dumps([dead, request]).encode(), *channel)

    def resume(self) -> None:
        self.users += 1
        self.signal(signal.SIGCONT)

    def pause(self) -> None:
        self.users -= 1
        if not self.users:
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.parent is not None and self.name:
            self.parent.dead.append(self.name)
            self.parent = None
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1

    def inner_pid(self) -> int:
        """The pid by which the sandbox knows it. Raises Gone."""
        if not self.inner:
            try:
                self.inner = int(proc(f"{self.pid}/status").partition("NSpid:")[2].partition("\n")[0].split()[-1])
            except OSError as error:
                raise Gone from error
        return self.inner

    def memory(self) -> tuple[int, int]:
        """Bytes of address space, and bytes resident that are no file's; those shared with its parent count."""
        total = resident = shared = 0
        with contextlib.suppress(OSError):
            total, resident, shared = map(int, proc(f"{self.pid}/statm").split()[:3])
        return total * PAGE_BYTES, (resident - shared) * PAGE_BYTES


def post_mortem(status: int | None) -> str:
    """Why a process went without an answer."""
    if status is None:
        return "ProcessError: the snippet broke the channel of its answer"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ProcessError: the snippet ended its own process with exit status {code}"
    return ENDS.get(-code, f"ProcessError: the process of the snippet crashed ({signal.Signals(-code).name})")

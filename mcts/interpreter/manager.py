"""The side of the interpreter that lives in the engine's process, on its event loop."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mcts.interpreter.contract import Execution, State

BOOT = """
import builtins, json, socket, sys, types
settings = json.loads(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3).recv(200000))
for name, source in settings.pop("sources").items():
    module = sys.modules[name] = types.ModuleType(name)
    vars(module)["__builtins__"] = dict(vars(builtins))
    exec(compile(source, "<" + name + ">", "exec"), vars(module))
module.main(settings)
"""
SOURCES = ("observation", "server")


class InterpreterError(RuntimeError):
    """The interpreter cannot start, or is used from two event loops at once."""


class Process:
    """A live state as the manager sees it: its socket and its process."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pidfd = -1

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Node:
    """A state in the tree of states: how to get it again, and the process that is it while there is one."""

    __slots__ = ("code", "held", "parent", "pins", "process")

    def __init__(self, parent: Node | None, code: str, process: Process | None) -> None:
        self.parent, self.code, self.process = parent, code, process
        self.held, self.pins = False, 0


class ForkInterpreter:
    """Forked Python states."""

    def __init__(
        self,
        *,
        profile: str = "alphamath",
        timeout_seconds: float = 15.0,
        max_states: int = 1024,
        memory_bytes: int = 1 << 30,
        workers: int | None = None,
        sandbox: Literal["auto", "required", "off"] = "auto",
        preload: Sequence[str] = ("math", "numpy", "sympy"),
    ) -> None:
        self.profile, self.timeout_seconds = profile, timeout_seconds
        self.max_states, self.memory_bytes = max_states, memory_bytes
        self.workers = workers or len(os.sched_getaffinity(0))
        self.sandbox, self.preload = sandbox, tuple(preload)
        self._server: subprocess.Popen[bytes] | None = None
        self._zygote: Process | None = None
        self._live: OrderedDict[Node, None] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> ForkInterpreter:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process. The interpreter may be used again: states are rebuilt."""
        for node in list(self._live):
            self._release(node)
        if self._zygote is not None:
            self._zygote.channel.close()
            self._zygote = None
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    async def run(self, state: State | None, code: str) -> Execution:
        self._bind()
        async with self._slots:
            parent = None if state is None else state.node
            assert parent is None or isinstance(parent, Node)
            process = await self._process(parent)
            child, answer = await self._spawn(process, code)
        if child is None:
            return Execution(answer["observation"], state, answer["seconds"], True)
        node = Node(parent, code, child)
        return Execution(answer["observation"], self._hold(node), answer["seconds"], answer["failed"])

    def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self.workers)
        if self._server is None:
            self._start()

    def _start(self) -> None:
        control, control_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel, channel_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = Path(__file__).parent
        settings = {
            "sources": {f"mcts.interpreter.{name}": (folder / f"{name}.py").read_text() for name in SOURCES},
            "profile": self.profile,
            "preload": self.preload,
            "path": [p for p in sys.path if "python" in p],
        }
        control.send(json.dumps(settings).encode())
        self._server = subprocess.Popen(
            [sys.executable, "-c", f"import os; os.dup2({control_end.fileno()}, 3); os.dup2({channel_end.fileno()}, 4)\n" + BOOT],
            pass_fds=(control_end.fileno(), channel_end.fileno()),
            stdin=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
        )
        control_end.close(), channel_end.close()
        self._control = control
        self._zygote = Process(channel)

    async def _process(self, node: Node | None) -> Process:
        if node is None:
            assert self._zygote is not None
            return self._zygote
        if node.process is None:
            child, _ = await self._spawn(await self._process(node.parent), node.code)
            assert child is not None
            node.process = child
        return node.process

    async def _spawn(self, parent: Process, code: str) -> tuple[Process | None, dict[str, Any]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.send(json.dumps({"code": code}).encode())
        parent.channel.sendmsg([b"fork"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        theirs.close()
        child = Process(ours)
        assert self._loop is not None
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                pid = await self._loop.sock_recv(ours, 64)
                child.pidfd = os.pidfd_open(int(pid))
                answer = await self._loop.sock_recv(ours, 200_000)
                return child, json.loads(answer)
        except TimeoutError:
            text = f"TimeoutError: the snippet ran longer than {self.timeout_seconds:g} seconds"
        except (OSError, ValueError):
            text = "RuntimeError: the snippet ended its process"
        child.kill()
        return None, {"observation": text, "seconds": time.monotonic() - started}

    def _hold(self, node: Node) -> State:
        state = State(node)
        node.held = True
        self._live[node] = None
        weakref.finalize(state, self._release, node).atexit = False
        return state

    def _release(self, node: Node) -> None:
        node.held = False
        self._live.pop(node, None)
        if node.process is not None:
            node.process.kill()
            node.process = None

"""The side of the interpreter in the engine's process, on its event loop: which state is alive, which snippet runs,
what has to be rebuilt. It believes nothing that a state says but the state's own observation."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from mcts.interpreter.contract import Execution, InterpreterError, State
from mcts.interpreter.limits import Limits
from mcts.interpreter.observation import PROFILES, TIMEOUTS, cut
from mcts.interpreter.process import Gone, Process, available_bytes, post_mortem
from mcts.interpreter.sandbox import ISOLATIONS, Server, seccomp_program
from mcts.interpreter.tree import LIGHT_MODULES, Node, is_light, mark_of
from mcts.interpreter.values import NO_VALUES, NOT_HERE, may_be_plain

START_SECONDS = 60.0
REPLAYED_SECONDS = 1.0
"""A snippet runs in its parent's process only where all before it took no longer: it may be killed, and they replayed.
It also keeps the processor time of the path small beside the bound of a process."""
_OBJECT = re.compile(r" at 0x[0-9a-f]{6,16}(?=>)")  # <f at 0x7f…>: another one in every process, and so another tree
Answer = tuple[str, float, bool]  # observation, seconds, failed


class Lost(Exception):
    """A process was told to fork and did not: it is dead, or a snippet has made it its own."""


class Spent(Exception):
    """A process that was to run the next snippet is dead."""


class Killed(Exception):
    """A snippet did not end by itself: the observation, and whether it hung before it began, in its parent's fork."""

    def __init__(self, observation: str, in_fork: bool = False) -> None:
        super().__init__(observation)
        self.in_fork = in_fork


class NotRebuilt(Killed):
    """The snippet of a state that lost its process did not end by itself when it was run again."""


class ForkInterpreter:
    """One process per state, forked from its parent's or, for a last child, its parent's own: a snippet runs once, and
    what it does stays in its own process.

    limits: the bounds of the sandbox; single ones may be given by name, such as `timeout_seconds=5`.
    profile: the rules of observations (`observation.PROFILES`).
    sandbox: `auto` warns where the machine lacks something, `required` refuses to start, `off` confines nothing.
    preload: modules that every state has imported; those that are not installed are left out. A path that imports only
    small ones of the standard library starts without the others, and is replayed with them when that changes.

    Raises InterpreterError where the server cannot start. Use from one event loop at a time.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        profile: str = "alphamath",
        sandbox: Literal["auto", "required", "off"] = "auto",
        preload: Sequence[str] = ("math", "numpy", "sympy"),
        **bounds: Any,
    ) -> None:
        if profile not in PROFILES:
            raise ValueError(f"profile {profile!r} does not exist: use one of {', '.join(sorted(PROFILES))}")
        self.limits = replace(limits or Limits(), **bounds)
        self.profile, self.sandbox, self.preload = profile, sandbox, tuple(preload)
        self.workers = self.limits.workers or min(len(os.sched_getaffinity(0)), 250)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # a state holds two
        self.max_states = max(1, min(self.limits.max_states, (descriptors - 256) // 2))
        self.total_bytes = available_bytes() // 2
        self._full, self._light = Node(None, ""), Node(None, "")
        self._roots = {"full": self._full}
        if not set(preload) <= LIGHT_MODULES:
            self._roots["light"] = self._light
        self._live: OrderedDict[Node, None] = OrderedDict()  # least recently used first
        self._bytes = 0  # of their processes together
        self._server: Server | None = None
        self._hosts: dict[int, Process] = {}  # by slot: idle processes of states that are values
        self._stop: weakref.finalize[[], ForkInterpreter] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warned = False

    async def __aenter__(self) -> ForkInterpreter:
        self._bind()
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process. The interpreter may be used again: states that are still held are rebuilt."""
        for node in [*self._roots.values(), *self._live]:
            self._discard(node)
        while self._hosts:
            self._hosts.popitem()[1].kill()
        self._server = None
        if self._stop is not None:
            self._stop()

    @property
    def load(self) -> tuple[int, int]:
        """How many snippets run now, and how many can at a time."""
        return (self.workers - self._slots.qsize() if self._loop is not None else 0), self.workers

    async def run(self, state: State | None, code: str) -> Execution:
        """Run `code` in a copy of `state` (None: a fresh one). `state` itself never changes: the last child, where the
        search has announced it, takes its process, and what is needed of it later is rebuilt."""
        self._bind()
        last = state is not None and state.is_last()
        parent = self._roots.get("light", self._full) if state is None else state.node
        assert isinstance(parent, Node)
        if parent.root is self._light and not is_light(code):
            parent = self._twin(parent)
        if len(json.dumps(code)) > self.limits.code_bytes:
            return Execution(f"MemoryError: a snippet may have {self.limits.code_bytes} bytes", state, 0.0, True)
        parent.wait(1)
        try:
            if last and parent.values is None:
                await parent.last()
            slot = await self._slots.get()
            try:
                return await self._run(parent, state, code, slot, last)
            finally:
                self._slots.put_nowait(slot)
        finally:
            parent.wait(-1)

    async def _run(self, parent: Node, state: State | None, code: str, slot: int, last: bool) -> Execution:
        failures = 0
        while failures < 2:
            started, server = time.monotonic(), self._server
            parent.pins += 1
            try:
                await self._revive(parent, slot)
                started, server = time.monotonic(), self._server
                execution = await self._compute(parent, code, slot)
                if execution is not None:
                    return execution
                in_place, last = last and self._is_spare(parent), False
                run = self._go_on if in_place else self._fork
                process, (observation, seconds, failed) = await run(parent, code, slot)
                spent = parent.seconds + time.monotonic() - started
                after = self._hold(Node(parent, code, mark_of(observation, failed), process, spent))
                return Execution(observation, after, seconds, failed, any(node.differs for node in parent.path()))
            except NotRebuilt as killed:
                if killed.in_fork:
                    self.close()
                reason = f"ReplayError: the state before this snippet could not be rebuilt: {killed}"
                return Execution(reason, state, 0.0, True, replay_differs=True)
            except Killed as killed:
                if killed.in_fork:
                    self.close()
                if state is not None:
                    state.shared = True  # with whoever asked for this run
                return Execution(str(killed), state, time.monotonic() - started, True)
            except Spent:
                continue
            except Lost:
                if server is self._server:  # what was forked instead ends with it; the rest comes back by replay
                    self.close()
                    failures += 1
            finally:
                parent.pins -= 1
        return Execution("ProcessError: the state before this snippet does not fork", state, 0.0, True)

    # The server

    def _bind(self) -> None:
        """Belong to the running event loop."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None and self._loop.is_running():
            raise InterpreterError("this interpreter is used by an event loop in another thread: make one for each")
        self._loop, self._slots = loop, asyncio.LifoQueue[int]()
        self._locks: weakref.WeakKeyDictionary[object, asyncio.Lock] = weakref.WeakKeyDictionary()
        for slot in range(self.workers):
            self._slots.put_nowait(slot)

    def _lock(self, owner: object) -> asyncio.Lock:
        return self._locks.setdefault(owner, asyncio.Lock())

    async def _start(self) -> None:
        """Have a server, and a living zygote at the root of all states."""
        async with self._lock(self):
            if self._full.process is not None:
                return
            server, missing = await self._launch()
            if missing and self.sandbox == "required":
                server.close()
                raise InterpreterError(f"--sandbox required, and this machine lacks {', '.join(missing)}")
            if missing and not self._warned:
                self._warned = True
                text = f"the sandbox lacks {', '.join(missing)}: docs/interpreter.md says what that leaves open"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            self._server, self._stop = server, weakref.finalize(self, server.close)
            self._by_pid: weakref.WeakValueDictionary[int, Process] = weakref.WeakValueDictionary()
            for kind, root in self._roots.items():
                root.process = zygote = server.zygotes[kind]
                self._register(zygote)
                zygote.users = 1  # never stopped
                total, root.bytes = zygote.memory()
                resource.prlimit(zygote.pid, resource.RLIMIT_AS, (total + self.limits.memory_bytes,) * 2)

    async def _launch(self) -> tuple[Server, list[str]]:
        """The best server that this machine can run, and what it lacks."""
        program = "" if self.sandbox == "off" else seccomp_program()
        modules = {kind: self.preload if kind == "full" else sorted(LIGHT_MODULES) for kind in self._roots}
        settings = {"profile": self.profile, "preload": modules, "slots": self.workers, "seccomp": program}
        settings |= {"processes": self.max_states + 4096, "cpu_seconds": int(self.limits.timeout_seconds) + 2}
        settings["limits"] = asdict(self.limits)
        missing = [] if program or self.sandbox == "off" else ["seccomp (pip install pyseccomp, libseccomp)"]
        for isolation in ISOLATIONS if self.sandbox != "off" else ("off",):
            with contextlib.ExitStack() as undo:
                try:
                    async with asyncio.timeout(START_SECONDS):
                        server = Server(settings, isolation)
                        undo.callback(server.close)
                        missing += await server.greeting()
                        undo.pop_all()
                        return server, missing
                except (Gone, OSError, TimeoutError, InterpreterError) as error:
                    missing.append(f"{isolation} ({str(error) or type(error).__name__})")
        raise InterpreterError(f"the interpreter's server does not start: {missing[-1]}")

    # States

    def _twin(self, node: Node) -> Node:
        """The same state with all modules preloaded: it is made by replay, and kept for what follows."""
        path = list(node.path())
        twin = self._full
        for step in reversed(path[:-1]):
            if step.twin is None:
                step.twin = Node(twin, step.code, step.mark, seconds=step.seconds)
                step.twin.values = step.values
            twin = step.twin
        return twin

    async def _revive(self, node: Node, slot: int) -> None:
        """Give a node that lost its process a new one, by replay from its nearest living ancestor."""
        self._touch(node)
        chain = [node]
        while not chain[-1].alive() and chain[-1].parent is not None:
            chain.append(chain[-1].parent)
        if chain[-1].values is not None and chain[-1].parent is not None:
            chain.append(chain[-1].root)
        for node in chain:
            node.pins += 1
        try:
            for node in reversed(chain):
                async with self._lock(node):
                    await self._rebuild(node, slot)
        finally:
            for node in chain:
                node.pins -= 1
        for node in chain[1:-1]:
            self._release(node, node.held)

    async def _rebuild(self, node: Node, slot: int) -> None:
        if node.alive():
            return
        self._discard(node)
        if node.parent is None:
            self.close()
            await self._start()
        else:
            node.parent.wait(1)
            try:
                node.process, (observation, _, failed) = await self._fork(node.parent, node.code, slot)
            except Killed as killed:
                raise NotRebuilt(str(killed), killed.in_fork) from None
            finally:
                node.parent.wait(-1)
            node.differs = mark_of(observation, failed) != node.mark
            self._admit(node)

    async def _compute(self, parent: Node, code: str, slot: int) -> Execution | None:
        """Run a snippet on a state that is values; None where that does not do. Raises Killed and Lost."""
        if parent.values is None or not may_be_plain(code):
            return None
        host = self._hosts.pop(slot, None)
        if host is None:
            host, _ = await self._fork(parent.root, None, slot)
            host.resume()
        started, server, done = time.monotonic(), self._server, False
        try:
            host.send(code.encode() + b"\0" + parent.values)
            async with asyncio.timeout(self.limits.timeout_seconds):
                data = await host.receive()
            elapsed = time.monotonic() - started
            head, said = packet(data)
            if data != NOT_HERE:
                size = int(head.split()[3])
                observation, seconds, failed = self._parse(host, head, said[:size], elapsed)
            host.seconds += elapsed
            done = host.seconds <= REPLAYED_SECONDS and server is self._server
        except TimeoutError:
            raise Killed(TIMEOUTS[self.profile].format(self.limits.timeout_seconds)) from None
        except (Gone, ValueError, IndexError):
            return None
        finally:
            if done:
                self._hosts[slot] = host
            else:
                host.kill()
        if data == NOT_HERE:
            return None
        node = Node(parent, code, mark_of(observation, failed), seconds=parent.seconds + seconds)
        node.values = said[size:]
        return Execution(observation, self._hold(node), seconds, failed)

    async def _fork(self, parent: Node, code: str | None, slot: int) -> tuple[Process, Answer]:
        """Fork `parent`, run the snippet in the child. Raises Killed for the snippet, Lost for the parent."""
        values = NO_VALUES if parent.values is None else parent.values
        source, server = (parent if parent.values is None else parent.root).process, self._server
        if source is None or server is None:
            raise Spent
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = Process(ours, source)
        source.resume()
        try:
            child.send(json.dumps(server.request(code, slot, values)).encode())
            server.order({"fork": source.inner_pid()})
            source.command(None, theirs.fileno())
            theirs.close()
            answer = await self._answer(child, parent)
        except BaseException as error:
            child.kill()
            lost = isinstance(error, Gone) or (isinstance(error, Killed) and server is not self._server)
            raise (Lost() if lost else error) from None
        finally:
            theirs.close()
            source.pause()
            child.signal(signal.SIGSTOP)
            server.prepare(slot)
        return child, answer

    def _is_spare(self, node: Node) -> bool:
        """Whether nobody but the one who asks needs the node's process, and the next snippet may run in it."""
        alone = node.waiting == 1 and node.parent is not None
        return alone and node.seconds <= REPLAYED_SECONDS and node.process is not None and node.process.same_as_a_fork()

    async def _go_on(self, parent: Node, code: str, slot: int) -> tuple[Process, Answer]:
        """Run the snippet in the process of `parent`, which has none then. Raises Killed for the snippet, Spent for the
        process, Lost where all of them ended."""
        process, server = parent.process, self._server
        assert process is not None
        if server is None:
            raise Spent
        self._forget(parent)
        process.resume()
        try:
            server.order({"again": process.inner_pid()})
            process.command(server.request(code, slot))
            answer = await self._answer(process, parent)
        except BaseException as error:
            process.kill()
            if isinstance(error, Killed) and server is not self._server:
                raise Lost from None
            raise (Spent() if isinstance(error, Gone) else error) from None
        finally:
            process.pause()
            server.prepare(slot)
        return process, answer

    async def _answer(self, child: Process, parent: Node) -> Answer:
        """What the snippet answers; from its first word on it does not need `parent`. Raises Gone where there is no
        child, Killed where the child does not answer."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                greeting = await child.receive()
                self._register(child)
                child.name = int(greeting) if greeting.isdigit() and len(greeting) < 10 else 0
                parent.wait(-1)
                try:
                    return self._parse(child, *packet(await child.receive()), time.monotonic() - started)
                except (Gone, ValueError):
                    raise Killed(post_mortem(await child.wait_status(2.0))) from None
                finally:
                    parent.wait(1)
        except TimeoutError:
            with contextlib.suppress(Gone):
                while (data := child.read()) is not None:  # the loop was busy while the answer came
                    with contextlib.suppress(ValueError):
                        return self._parse(child, *packet(data), self.limits.timeout_seconds)
            raise Killed(TIMEOUTS[self.profile].format(self.limits.timeout_seconds), in_fork=not child.pid) from None

    def _parse(self, child: Process, head: bytes, text: bytes, elapsed: float) -> Answer:
        """An answer. Raises ValueError for anything else: a snippet may have written it."""
        failed, claimed, fork_only = head.split()[:3]
        seconds, child.fork_only = float(claimed), fork_only != b"False"
        said = _OBJECT.sub(" at 0x0", text.decode("utf-8", "replace"))
        observation = cut(said, self.limits.observation_characters)
        return observation, seconds if 0 <= seconds <= elapsed else elapsed, failed == b"True"

    def _register(self, child: Process) -> None:
        """Raises Gone where the process that answers is not a new one."""
        other = self._by_pid.get(child.pid)
        if other is not None and other is not child and other.pid == child.pid:
            raise Gone
        self._by_pid[child.pid] = child

    def _touch(self, node: Node) -> None:
        """Used now, and so is all that it comes from: nobody goes before the last of its descendants, which may have
        to be rebuilt from it."""
        for line in node.path():
            if line in self._live:
                self._live.move_to_end(line)

    def _hold(self, node: Node) -> State:
        state = State(node)
        if node.values is None:
            self._admit(node)
        node.held = True
        weakref.finalize(state, self._release, node, False).atexit = False
        return state

    def _release(self, node: Node, held: bool) -> None:
        node.held = held
        if not (held or node.pins):
            self._discard(node)
            if node.twin is not None:
                self._release(node.twin, False)

    def _discard(self, node: Node) -> None:
        if node.process is not None:
            node.process.kill()
        self._forget(node)

    def _forget(self, node: Node) -> None:
        if node in self._live:
            del self._live[node]
            self._bytes -= node.bytes
        node.process = None

    def _admit(self, node: Node) -> None:
        """Count a new process; the least recently used go when they are too many, or too large together."""
        assert node.process is not None
        node.bytes = max(0, node.process.memory()[1] - node.root.bytes)
        self._live[node] = None
        self._bytes += node.bytes
        self._touch(node)
        for victim in list(self._live):
            if len(self._live) <= self.max_states and self._bytes <= self.total_bytes:
                break
            if not victim.pins and victim is not node:
                self._discard(victim)


def packet(data: bytes) -> tuple[bytes, bytes]:
    """The first line of an answer, and the rest."""
    head, _, rest = data.partition(b"\n")
    return head, rest

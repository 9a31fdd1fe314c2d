"""What runs inside the sandbox: the warden, the zygote and the states. Standard library only.

The warden is the first process. It runs no snippet, listens to the manager alone, decides which process may fork
(the kernel asks it, by a seccomp notification) and sweeps the writable folders. The zygotes are its children: each
holds its preloaded modules, and every fresh state is forked from one of them. A state serves on its own socket: told to
fork, it hands the socket that came with the command to the child, which runs its snippet, answers and then serves in
turn.

A process that has run a snippet is the snippet's: whatever it says on its own socket may be a lie. It holds no other
descriptor, may not fork without a grant, and can neither signal, trace nor list other processes.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import gc
import importlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import site
import socket
import struct
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from mcts.interpreter import confine, heap, values
from mcts.interpreter.observation import Capture, observe

PACKET_BYTES = 200_000
CHANNEL = 48  # descriptors from here on are a state's channel: files that a snippet forgot have lower ones
NOTIFICATION, RECEIVE, RESPOND, CONTINUE = 80, 0xC0502100, 0xC0182101, 1  # of seccomp
CLONE_THREAD = 0x10000
THREAD_FLAGS = 0x003D0F00  # all that the C library makes a thread with: no namespace among them
FORK_FLAGS = 0x012000FF  # a plain fork: the child's thread id, and the signal of its end
WARM_UP = """
import sympy
x, y = sympy.symbols("x y")
sympy.solve([x + y - 3, x - y - 1], [x, y]), sympy.solve(x**2 - 5*x + 6, x), sympy.integrate(x * sympy.exp(x), x)
sympy.simplify(sympy.sin(x)**2 + sympy.cos(x)**2), sympy.factorint(360), sympy.Matrix([[1, 2], [3, 4]]).det()
sympy.integrate(x * sympy.exp(-x), (x, 0, sympy.oo))  # the tables of definite integrals
"""


def packet_socket(descriptor: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)


# The states


def serve(channel: socket.socket, settings: dict[str, Any]) -> NoReturn:
    """Fork, run and report on command, until the manager closes the channel."""
    runner = Runner(settings["profile"])
    namespace: dict[str, Any] = {}
    dead: set[int] = set()  # children that the manager has no more questions about
    while True:
        command, descriptors, _, _ = socket.recv_fds(channel, PACKET_BYTES, 1)
        if not command:
            os._exit(0)
        more_dead, request = json.loads(command)
        reap(dead, more_dead)
        if not descriptors:
            runner.run(channel, namespace, request)
        elif fork(descriptors[0]):
            channel.close()
            channel = packet_socket(fcntl.fcntl(descriptors[0], fcntl.F_DUPFD_CLOEXEC, CHANNEL))
            os.close(descriptors[0])
            namespace, dead = namespace or main_namespace(settings["cpu_seconds"]), set()
            request = json.loads(channel.recv(PACKET_BYTES))
            if request["code"] is None:
                values.host(channel, runner.observe)
            values.load(bytes.fromhex(request["values"]), namespace)
            runner.run(channel, namespace, request)


def main_namespace(cpu_seconds: int) -> dict[str, Any]:
    """The variables of a fresh state, whose processor time is bounded from here on."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(module)["__builtins__"] = builtins
    return vars(module)


def fork(descriptor: int) -> bool:
    """True in the child. A fork that is refused shows in the descriptor's end."""
    try:
        child = os.fork() == 0
    except OSError:
        child = False
    if not child:
        os.close(descriptor)
    return child


def reap(dead: set[int], more: list[int]) -> None:
    """Bury the children of which the manager has seen how they ended: until then only a zombie can tell it."""
    dead.update(more)
    for pid in list(dead):
        try:
            buried = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # a snippet has buried it
            buried = True
        if buried:
            dead.discard(pid)


class Runner:
    """Runs the snippets of a path, in one process after another or several in one."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.capture = Capture()
        self.stdout: io.TextIOWrapper[Any] = io.TextIOWrapper(io.BytesIO())
        self.stdout.close()
        self.files: dict[str, bytes] = {}  # what was in the writable folder
        self.hooked = False  # a fork does more than to copy
        register = os.register_at_fork

        def register_and_note(**hooks: Any) -> None:
            register(**hooks)
            self.hooked = True

        for module in ("os", "posix"):
            setattr(sys.modules[module], "register_at_fork", register_and_note)  # noqa: B010

    def run(self, channel: socket.socket, namespace: dict[str, Any], request: dict[str, str]) -> None:
        """Run a snippet and answer."""
        channel.send(str(os.getpid()).encode())
        unpack(request["folder"], self.files)
        observation, failed, seconds = self.observe(request["code"], namespace)
        self.files = pack(request["folder"], channel.fileno())
        fork_only = self.hooked or signals_left()
        channel.send(f"{failed} {seconds} {fork_only}\n{observation}".encode("utf-8", "backslashreplace"))

    def observe(self, code: str, namespace: dict[str, Any]) -> tuple[str, bool, float]:
        """The observation, whether the snippet raised, and its seconds."""
        sys.stdout = self.standard_output()
        started = time.perf_counter()
        observation, failed = observe(code, namespace, self.capture, self.profile)
        return observation, failed, time.perf_counter() - started

    def standard_output(self) -> io.TextIOWrapper[Any]:
        """One for all snippets, unless one of them closed or detached it."""
        try:
            usable = not self.stdout.closed
        except ValueError:
            usable = False
        if not usable:
            self.capture = Capture()
            self.stdout = io.TextIOWrapper(io.BufferedWriter(self.capture), "utf-8", "backslashreplace")
        return self.stdout


def signals_left() -> bool:
    """Stop the timers, which no child has. Whether there are signals that wait to be unblocked, as no child has."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    return bool(signal.sigpending())


def unpack(folder: str, files: dict[str, bytes]) -> None:
    """Make the empty `folder` the working directory, and put `files` in it."""
    while not os.path.isdir(folder):  # without seccomp nothing makes the fork wait for the warden
        time.sleep(0.001)
    os.chdir(folder)
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pack(folder: str, channel: int) -> dict[str, bytes]:
    """The files in `folder`. Every descriptor but the channel is closed, since children would share it: files that
    the snippet forgot are flushed and closed by name, or they would later close what has their number then."""
    os.chdir("/")
    free = os.dup(0)
    os.close(free)
    forgotten = gc.get_objects() if free > 3 else []  # what the snippet made: the zygote's objects are frozen
    for kinds, end in ((io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom), "flush"), ((io.FileIO,), "close"):
        for file in forgotten:
            if type(file) in kinds:
                with contextlib.suppress(OSError, ValueError):
                    getattr(file, end)()
    os.closerange(3, channel)
    os.closerange(channel + 1, 1024)
    files = {}
    for path in [Path(at, name) for at, _, names in os.walk(folder) for name in names]:
        with contextlib.suppress(PermissionError):  # made unreadable
            files[str(path.relative_to(folder))] = path.read_bytes()
    return files


# The zygote


def zygote(channel: socket.socket, to_warden: socket.socket, settings: dict[str, Any]) -> NoReturn:
    with heap.shared_heap():
        preload(settings["preload"])
    missing, listener = restrict(settings)
    socket.send_fds(to_warden, [json.dumps(missing).encode()], listener)
    for descriptor in (to_warden.detach(), *listener):
        os.close(descriptor)
    channel.send(b"ready")
    serve(channel, settings)


def preload(names: list[str]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "sympy" in sys.modules:
        exec(WARM_UP, {})
    site.setquit()
    sys.set_int_max_str_digits(0)  # the digits of 2 ** 20000 are a fair question
    seed_generators()
    gc.collect()
    gc.freeze()


def seed_generators() -> None:
    """The same seed in every run: a search with the same seed writes the same tree."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "sympy" in sys.modules:
        sys.modules["sympy"].core.random.seed(0)


def restrict(settings: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Put the bounds on. What the machine cannot do, and the descriptor on which the kernel asks about forks."""
    os.environ.clear()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    confine.limit_resources(settings["processes"], settings["limits"])
    if settings["isolation"] == "off":
        return [], []
    confine.drop_capabilities()
    readable, program = settings["landlock"], bytes.fromhex(settings["seccomp"])
    missing = [] if not readable or confine.landlock(readable, settings["folder"]) else ["Landlock"]
    listener = [confine.seccomp(program)] if program else []
    return (missing, listener) if -1 not in listener else ([*missing, "seccomp notifications"], [])


# The warden


class Warden:
    """Grants forks, and keeps the writable folders, on the word of the manager."""

    def __init__(
        self, control: socket.socket, listener: list[int], base: str, isolated: bool, limits: dict[str, int]
    ) -> None:
        self.control, self.listener, self.base, self.isolated = control, listener, base, isolated
        self.limits = limits
        self.grants: Counter[int] = Counter()  # forks allowed, by process
        self.asked: Counter[int] = Counter()  # for threads, and for what was refused

    def watch(self) -> None:
        """Serve until the manager is gone."""
        while True:
            ready = select.select([self.control.fileno(), *self.listener], [], [])[0]
            while select.select([self.control], [], [], 0)[0]:  # a grant comes before its fork
                command = self.control.recv(PACKET_BYTES)
                if not command:
                    return
                self.obey(json.loads(command))
            for listener in self.listener:
                if listener in ready:
                    self.answer(listener)

    def obey(self, command: dict[str, Any]) -> None:
        """Make the folder `name`, alone in the folder `slot`, for a snippet to come; allow the process `fork` one fork;
        allow the process `again`, which runs another snippet, what a new one may ask for."""
        if "slot" in command:
            folder = f"{self.base}/{command['slot']}"
            confine.empty_folder(folder, self.isolated, self.limits)
            os.mkdir(f"{folder}/{command['name']}", 0o700)
        elif "fork" in command:
            self.grants[command["fork"]] += 1
        else:
            del self.asked[command["again"]]

    def answer(self, listener: int) -> None:
        """A process asks for a thread or a fork: the arguments are in registers, so they are what will be done."""
        notification = bytearray(NOTIFICATION)
        with contextlib.suppress(OSError):  # the process died while it waited
            fcntl.ioctl(listener, RECEIVE, notification)
            identifier, pid = struct.unpack_from("QI", notification)
            flags = struct.unpack_from("Q", notification, 32)[0]
            granted = self.grants[pid] > 0 and not flags & ~FORK_FLAGS
            allowed = granted or self.thread(pid, flags)
            error, option = (0, CONTINUE) if allowed else (-errno.EPERM, 0)
            fcntl.ioctl(listener, RESPOND, struct.pack("QqiI", identifier, 0, error, option))
            self.grants[pid] -= granted
            self.grants += Counter()  # forget the zeros

    def thread(self, pid: int, flags: int) -> bool:
        """Whether a process may have one more thread. One that keeps asking for what it cannot have is killed."""
        self.asked[pid] += 1
        with contextlib.suppress(OSError):
            os.close(os.pidfd_open(pid))  # fails for a thread: threads start no threads
            if self.asked[pid] > self.limits["refused_requests"]:
                os.kill(pid, signal.SIGKILL)
                del self.asked[pid]
            return (
                self.asked[pid] <= self.limits["thread_starts"]
                and bool(flags & CLONE_THREAD)
                and not flags & ~THREAD_FLAGS
            )
        return False


def main(control: socket.socket, settings: dict[str, Any]) -> None:
    """The first process, after `BOOT`: confine, fork the zygotes, greet the manager, keep watch."""
    channels = {kind: packet_socket(descriptor) for kind, descriptor in settings["zygotes"].items()}
    isolated = settings["isolation"] in ("bubblewrap", "unshare")
    base = settings["folder"] if isolated else tempfile.mkdtemp(prefix="arbor-")
    confine.make_folders(base, settings["slots"], isolated, settings["limits"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for kind, channel in channels.items():
        if not os.fork():
            for other in (control, ours, *(one for one in channels.values() if one is not channel)):
                other.close()
            zygote(channel, theirs, {**settings, "preload": settings["preload"][kind], "folder": base})
    for end in (theirs, *channels.values()):
        end.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come here; nobody asks how they ended
    listeners: list[int] = []
    for _ in channels:
        message, listener, _, _ = socket.recv_fds(ours, PACKET_BYTES, 1)
        listeners += listener
    control.send(json.dumps([base, json.loads(message)]).encode())
    Warden(control, listeners, base, isolated, settings["limits"]).watch()
    if not isolated:
        shutil.rmtree(base, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

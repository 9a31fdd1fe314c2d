"""What runs inside the sandbox: the warden, the zygote and the states. Standard library only.

The warden is the first process. It runs no snippet, answers to the manager alone, decides which process may fork and
sweeps the writable folders. The zygote is its child: it holds the preloaded modules, and every fresh state is forked
from it. A state serves on its own socket: told to fork, it passes the socket that came with the command to the child,
which runs its snippet, sends the outcome and then serves in turn.

Everything that a snippet has run in is the snippet's: it may answer with lies on its own socket, nowhere else.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
import types
from typing import Any

from mcts.interpreter.observation import Capture, observe

PACKET_BYTES = 200_000
CONTROL, ZYGOTE = 3, 4  # descriptors that the manager hands over


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and the descriptors that came with it. b"": the other end is gone."""
    data, ancillary, _, _ = channel.recvmsg(PACKET_BYTES, socket.CMSG_SPACE(4))
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % 4])
    return data, list(descriptors)


def packet_socket(descriptor: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)


# --- states


def serve(channel: socket.socket, settings: dict[str, Any]) -> None:
    """Fork and report on command until the channel closes. Returns in no process."""
    capture = Capture()
    namespace: dict[str, Any] = {}
    while True:
        command, descriptors = receive(channel)
        if not command:
            os._exit(0)
        if command.startswith(b"wait"):
            channel.send(str(exit_status(int(command[4:]))).encode())
        elif descriptors and fork(descriptors[0]):
            channel.close()
            channel = packet_socket(descriptors[0])
            namespace = namespace or main_namespace()
            run_snippet(channel, namespace, capture, settings)


def fork(descriptor: int) -> bool:
    """True in the child. `random` reseeds itself in a child: undone, a child continues its parent's sequence."""
    state = random.getstate()
    try:
        child = os.fork() == 0
    except OSError:
        child = False  # the manager sees the descriptor close
    if child:
        random.setstate(state)
    else:
        os.close(descriptor)
    return child


def exit_status(pid: int) -> int:
    """How a child ended: its exit status, or the negative number of the signal; 0 where nobody knows."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except (OSError, ValueError):
        return 0


def main_namespace() -> dict[str, Any]:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    return vars(module)


def run_snippet(
    channel: socket.socket, namespace: dict[str, Any], capture: Capture, settings: dict[str, Any]
) -> None:
    request = json.loads(channel.recv(PACKET_BYTES))
    channel.send(str(os.getpid()).encode())
    sys.stdout = open_stdout(capture)
    started = time.perf_counter()
    observation, failed = observe(request["code"], namespace, capture, settings["profile"])
    seconds = time.perf_counter() - started
    answer = {"observation": observation, "failed": failed, "seconds": seconds}
    channel.send(json.dumps(answer).encode())


def open_stdout(capture: Capture) -> Any:
    import io

    return io.TextIOWrapper(io.BufferedWriter(capture), "utf-8", "backslashreplace")


def zygote(channel: socket.socket, settings: dict[str, Any]) -> None:
    for name in settings["preload"]:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    random.seed(0)
    gc.collect()
    gc.freeze()
    serve(channel, settings)


def main(settings: dict[str, Any]) -> None:
    sys.path[:] = settings["path"]
    sys.set_int_max_str_digits(0)
    zygote(packet_socket(ZYGOTE), settings)

"""Comparisons in processes that the kernel ends.

A worker answers one request at a time. It arms timers whose signals keep their default action, so the kernel kills
the process however deep in C code it is, and its address space is capped; the pair is then undecided. The limit is
on processor time, so that a verdict does not depend on how busy the machine is. Nothing is forked from the caller,
which may hold a GPU and any number of threads, and the caller's main module is not imported again: this is why
neither `multiprocessing` nor a pool built on it is used.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import resource
import shlex
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from eval.grading.policies import compare_here
from eval.grading.verdict import Grade, Verdict, undecided

ROOT = Path(__file__).resolve().parents[2]  # the folder above the packages
READY = "ready"
START = "import sys; from eval.grading.worker import serve; serve(float(sys.argv[1]), int(sys.argv[2]))"
WALL_FACTOR = 12  # the wall-clock limit, as a multiple of the limit on processor time


class Workers:
    """Up to `size` worker processes, started when first needed; safe to call from any thread."""

    def __init__(self, size: int, cpu_seconds: float = 2.5, memory_bytes: int = 2 << 30) -> None:
        self.arguments = [str(cpu_seconds), str(memory_bytes)]
        self.idle: queue.LifoQueue[subprocess.Popen[str] | None] = queue.LifoQueue()
        for _ in range(size):
            self.idle.put(None)

    def compare(self, gold: str, prediction: str, policy: str) -> Grade:
        """Blocks until a worker has answered or was killed. Raises RuntimeError if no worker can be started."""
        worker = self.idle.get()
        reply = ""
        try:
            worker = worker or self._start()
            reply = self._ask(worker, json.dumps([gold, prediction, policy]))
        finally:
            if not reply:  # lost, or interrupted with its answer still to come
                worker = self._stop(worker)
            self.idle.put(worker)
        if not reply:
            return undecided("the grading worker was lost")
        verdict, reason = json.loads(reply)
        return Grade(Verdict(verdict), reason)

    def close(self) -> None:
        """End the idle workers. They also end by themselves when this process does."""
        for _ in range(self.idle.qsize()):
            self.idle.put(self._stop(self.idle.get()))

    @staticmethod
    def _stop(worker: subprocess.Popen[str] | None) -> None:
        """Kill a worker with its child, which shares its process group."""
        if worker is not None:
            os.killpg(worker.pid, signal.SIGKILL)
            with worker:  # closes the pipes and waits
                pass

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", START, *self.arguments]
        pipe = subprocess.PIPE
        worker = subprocess.Popen(
            command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, process_group=0
        )
        if worker.stdout is None or worker.stdout.readline().strip() != READY:
            self._stop(worker)
            raise RuntimeError(f"a grading worker does not start: run `{shlex.join(command)}` in {ROOT} to see why")
        return worker

    @staticmethod
    def _ask(worker: subprocess.Popen[str], request: str) -> str:
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(request + "\n")
            worker.stdin.flush()
            return worker.stdout.readline()
        except BrokenPipeError:
            return ""


@lru_cache(maxsize=4)
def shared_workers(pid: int) -> Workers:
    """The workers of this process; `pid` keeps a forked child from writing into its parent's pipes."""
    workers = Workers(size=min(4, os.cpu_count() or 1))
    atexit.register(workers.close)
    return workers


def serve(cpu_seconds: float, memory_bytes: int) -> None:
    """Fork a child that answers requests; when a limit kills it, say so in its place and fork the next.

    The imports are done once, before the first fork, so a kill costs milliseconds.
    """
    import eval.grading.compare  # noqa: F401

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(READY, flush=True)
    while True:
        child = os.fork()
        if child == 0:
            _answer(cpu_seconds, memory_bytes)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return
        print(json.dumps(["undecided", f"stopped at the limit of {cpu_seconds:g} s or of memory"]), flush=True)


def _answer(cpu_seconds: float, memory_bytes: int) -> None:
    """Answer requests, one JSON line each, until the input ends or a limit ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * cpu_seconds)
        grade = compare_here(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps([grade.verdict.value, grade.reason]), flush=True)

"""Stages: commands that run once, and again only when the content of what they read has changed.

A stage leaves NAME.begun while it runs and NAME.done when it has ended well; both hold the hashes of its inputs. Not
covered: an input that a command reads without being told (a library, the program itself).
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
from mcts.errors import UserError
from mcts.jsonl import write_text_whole


def digest(value: Any) -> str:
    """16 hex digits of a value that JSON can carry; the order of the keys of a dictionary does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Stages:
    """The stages of one output folder. At most one process works in it; another one waits."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self._lock: int | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder's lock, which the commands inherit: one that outlived a killed run is waited for."""
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{self.output}: another run is at work here; waiting for it", file=sys.stderr, flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._lock = lock.fileno()
            yield
        self._lock = None

    def run(
        self,
        folder: Path,
        name: str,
        command: Sequence[str],
        inputs: Mapping[str, str],
        outputs: Sequence[Path],
        *,
        continues: bool = False,
    ) -> None:
        """Runs `command`, unless it has ended well with these inputs and its outputs are there.

        inputs: what the result depends on, name → hash. outputs: what the command writes; removed before it starts on
        other inputs. continues: a killed command goes on with what it left; else that is removed, too. Raises UserError
        where the command cannot be started, SystemExit with its code where it fails.
        """
        done, begun = folder / f"{name}.done", folder / f"{name}.begun"
        known = _inputs(done) or _inputs(begun)
        if done.exists() and known == inputs and all(path.exists() for path in outputs):
            return
        folder.mkdir(parents=True, exist_ok=True)
        if known not in (None, inputs):
            changed = [key for key in {**known, **inputs} if known.get(key) != inputs.get(key)]
            print(f"{folder.name}: {name}: {', '.join(changed)} changed; it is done again", file=sys.stderr, flush=True)
        if known not in (None, inputs) or not continues:
            for path in (done, *outputs):
                _remove(path)
        write_text_whole(begun, json.dumps({"inputs": inputs}) + "\n")
        seconds = self._execute(f"{folder.name}: {name}", command)
        write_text_whole(
            done, json.dumps({"inputs": inputs, "command": list(command), "seconds": round(seconds, 1)}) + "\n"
        )
        begun.unlink()

    def _execute(self, title: str, command: Sequence[str]) -> float:
        """Runs a command to its end; returns how many seconds it took."""
        print(f"[{time.strftime('%H:%M:%S')}] {title}: {shlex.join(command)}", flush=True)
        started = time.monotonic()
        program = [sys.executable, *command[1:]] if command[0] == "python" else list(command)
        locks = [self._lock] if self._lock is not None else []
        try:
            ended = subprocess.run(
                program,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                pass_fds=locks,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise UserError(f"{title}: {program[0]} cannot be run: {error.strerror}") from None
        if ended.returncode:
            raise SystemExit(ended.returncode)
        return time.monotonic() - started


def _inputs(marker: Path) -> dict[str, str] | None:
    """The inputs that a marker names. Raises UserError for one of an earlier version, which does not say."""
    if not marker.exists():
        return None
    try:
        return dict(json.loads(marker.read_text(encoding="utf-8"))["inputs"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{marker}: does not say of which inputs this stage was made; choose another output, or delete the file "
            "to do the stage again"
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """Commands find python's own programs (accelerate) and these packages, wherever they are started."""
    own = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(Path(models.__file__).resolve().parents[1])}
    return os.environ | {key: os.pathsep.join(filter(None, (path, os.environ.get(key)))) for key, path in own.items()}


def _die_with_parent() -> None:
    """A command ends when its run is killed (Linux), so that the next run finds nobody at work."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)

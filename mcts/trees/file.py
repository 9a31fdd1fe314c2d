"""Tree files: streamed, appended at once, continued after a kill."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mcts.errors import UserError
from mcts.jsonl import encode_line, read_items, uninterrupted, unwritable, write_whole
from mcts.trees.node import Node
from mcts.trees.record import TreeError, from_record

SCHEMA = "arbor/1"


def read_tree_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of every line of a tree file. Raises UserError with file and line."""
    empty = True
    for where, record in read_items(Path(path)):
        empty = False
        yield where, check_tree(where, record)
    if empty:
        raise UserError(f"{path}: no tree in it")


def check_tree(where: str, record: Any) -> dict[str, Any]:
    """The value of a line, as a record with a tree. Raises UserError."""
    if not isinstance(record, dict) or not isinstance(record.get("react"), Mapping):
        raise UserError(f'{where}: expected an object with a tree under "react"')
    check_record(where, record)
    return record


def check_record(where: str, record: Mapping[str, Any]) -> None:
    """Raises UserError where what stands beside a tree (or a row of ToRA's) is of another kind than commands expect."""
    for key in ("meta", "prediction"):
        if not isinstance(record.get(key), Mapping | None):
            raise UserError(f'{where}: "{key}": expected an object or null, found {record[key]!r:.40}')
    if not isinstance(record.get("runs", []), list):
        raise UserError(f'{where}: "runs": expected a list of trees, found {record["runs"]!r:.40}')
    prediction: Mapping[str, Any] | None = record.get("prediction")
    for key, kind, name in _PREDICTION:
        if prediction is not None and not isinstance(prediction.get(key), kind):
            raise UserError(f'{where}: "prediction": {key}: expected {name}, found {prediction.get(key)!r:.40}')


_PREDICTION: tuple[tuple[str, Any, str], ...] = (
    ("final_answer", str, "a text"),
    ("tag", str | None, "a text"),
    ("run", int | None, "a whole number"),
    ("correct", bool | None, "true, false or null"),
)


def read_roots(where: str, record: Mapping[str, Any]) -> list[Node]:
    """The trees of a line of a tree file, one a run. Raises UserError."""
    try:
        return [from_record(tree) for tree in (record["react"], *record.get("runs", ()))]
    except TreeError as error:
        raise UserError(f"{where}: {error}") from None


Recorded = Callable[[Mapping[str, Any]], str]
"""`meta` of a saved line → the fingerprint of the run that wrote it. Raises KeyError, TypeError or ValueError."""


def as_written(meta: Mapping[str, Any]) -> str:
    return str(meta["fingerprint"])


class TreeWriter:
    """Appends one line a question and knows which questions are done.

    fingerprint: of this run; only a file of the same one is continued. recorded: how a line's own is read.

    A line is written with a single system call, so a killed run leaves at most one torn line, which the next run
    cuts off. `finish` puts the lines in the order of the questions.
    """

    def __init__(self, path: str | Path, fingerprint: str, recorded: Recorded = as_written) -> None:
        self.path = Path(path)
        self.fingerprint, self.recorded = fingerprint, recorded
        self.done: dict[int, str] = {}  # question index → its text
        self.seed: int | None = None
        self.budgets: dict[int, dict[str, Any]] = {}  # what finished questions left to their block, where it is shared
        self._file: IO[bytes] | None = None
        self._lines: list[tuple[int, int, int]] = []  # index of the question, where its line begins, its bytes
        self._size = 0

    def open(self, *, resume: bool, seen: Callable[[dict[str, Any]], None] = lambda record: None) -> None:
        """Opens the file for appending; `seen` gets each record that is in it. Raises UserError rather than mix or
        overwrite runs."""
        self._lines, self._size = [], 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.path}: another run is writing it; wait for it, or choose another --output"
            ) from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None
        if self.path.stat().st_size:
            if not resume:
                raise UserError(f"{self.path}: exists already; choose another --output, or let --resume continue it")
            self._read_back(seen)

    def _read_back(self, seen: Callable[[dict[str, Any]], None]) -> None:
        assert self._file is not None
        whole = True
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if torn(line):
                    os.truncate(self.path, self._size)
                    return
                whole = line.endswith(b"\n")
                seen(self._read_line(line if whole else line + b"\n", f"{self.path}:{number}"))
        if not whole:
            self._file.write(b"\n")

    def _note(self, index: int, question: str, size: int) -> None:
        self.done[index] = question
        self._lines.append((index, self._size, size))
        self._size += size

    def _read_line(self, line: bytes, where: str) -> dict[str, Any]:
        try:
            with uninterrupted():
                record: dict[str, Any] = json.loads(line)
            meta = record["meta"]
            index, fingerprint, seed, question = meta["index"], self.recorded(meta), meta["seed"], record["question"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{where}: not a line that this command wrote; choose another --output") from None
        if fingerprint != self.fingerprint:
            raise UserError(f"{where}: written with another configuration or model; choose another --output")
        self._note(index, question, len(line))
        self.seed = seed
        if "budget" in meta:
            self.budgets[index] = meta["budget"]
        return record

    def append(self, index: int, record: Mapping[str, Any]) -> None:
        """Writes a finished question; it is on disk (in the system's cache) on return. Raises UserError where it cannot
        be written, with the lines before it whole."""
        self.append_line(index, str(record["question"]), encode_line(record))

    def append_line(self, index: int, question: str, line: bytes) -> None:
        """`append` for a record that was encoded elsewhere."""
        assert self._file is not None, "open() comes first"
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            with suppress(OSError):  # of what is no regular file
                os.truncate(self.path, self._size)
            raise UserError(
                f"{unwritable(self.path, error)}; its {len(self.done)} finished questions are kept"
            ) from None
        self._note(index, question, len(line))

    def finish(self) -> None:
        """Sorts the lines by question, whole or not at all."""
        self.close()
        if self._lines == sorted(self._lines):
            return
        with self.path.open("rb") as source, write_whole(self.path) as target:
            for _, start, length in sorted(self._lines):
                source.seek(start)
                target.write(source.read(length))
        self._lines.clear()  # they stand elsewhere now

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def torn(line: bytes) -> bool:
    """Whether a line is what a killed run leaves of an object: without a line break, and no JSON. A last line that
    is whole, or begins in another way, is somebody else's."""
    if line.endswith(b"\n") or not line.startswith(b"{"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def unfinished_output(
    pattern: Path, stamp: str, fingerprint: str, total: int, recorded: Recorded = as_written
) -> Path | None:
    """The newest file `pattern`<stamp>.jsonl of the same configuration that has fewer than `total` questions, if there
    is one. stamp: a glob pattern."""
    for path in sorted(pattern.parent.glob(f"{_escape(pattern.name)}{stamp}.jsonl"), reverse=True):
        try:
            with path.open("rb") as lines:
                first = lines.readline()
                count = (1 if first.endswith(b"\n") else 0) + sum(1 for line in lines if line.endswith(b"\n"))
            same = not count or recorded(json.loads(first)["meta"]) == fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and count < total:
            return path
    return None


def _escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)

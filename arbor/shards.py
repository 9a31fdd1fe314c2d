"""Shards: one run over the questions of a file, on several machines, and its parts put together again.

A question keeps its index in the whole file, so its noise, and with it its tree, is that of the undivided run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcts.errors import UserError
from mcts.jsonl import encode_line, reading, uninterrupted, write_whole
from mcts.question import Question
from mcts.trees.file import torn
from models.engines.config import RunConfig, recorded_fingerprint


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `of` parts."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "i/n". i counts from 0 or from 1, as arrays of jobs do: n/n is 0/n. Raises UserError."""
        index, slash, of = text.partition("/")
        if not (slash and index.isascii() and index.isdecimal() and of.isascii() and of.isdecimal()):
            raise UserError(f"--shard {text}: expected i/n, such as 0/4 for the first of four shards")
        if not 0 <= int(index) <= int(of) <= 1_000_000 or not int(of):
            raise UserError(f"--shard {text}: expected i from 0 to n, and n at least 1 (n/n is the shard 0/n)")
        return cls(int(index) % int(of), int(of))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def name(self) -> str:
        """As it stands in the names of files."""
        return f"shard-{self.index}-of-{self.of}"

    def part(self, questions: Iterable[Question], block: int = 0) -> Iterator[Question]:
        """Every n-th question; where `block` consecutive questions share a budget (by index), every n-th block."""
        for place, question in enumerate(questions):
            if (question.index // block if block else place) % self.of == self.index:
                yield question

    def describe(self, questions: Iterable[Question], config: RunConfig) -> tuple[frozenset[int], dict[str, Any]]:
        """The indices of the shard, and what its lines say of it (`meta.shard`). Raises UserError without a
        seed, and for a shard without a question."""
        if config.seed is None:
            raise UserError(f"--shard {self}: the shards of a run share a seed; add --seed N, the same for each")
        whole = list(questions)
        known = [[question.index, question.text, question.answers] for question in whole]
        indices = frozenset(question.index for question in self.part(whole, config.budget_block))
        if not indices:
            raise UserError(f"--shard {self}: has none of the {len(whole)} questions; expected fewer shards")
        identity = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
        about = {"index": self.index, "of": self.of, "size": len(indices), "questions": len(whole), "hash": identity}
        return indices, about


def check_own(path: Path, done: Iterable[int], indices: frozenset[int], shard: Shard) -> None:
    """Raises UserError where a file that is to be continued holds questions of another shard."""
    if others := sorted(set(done) - indices):
        raise UserError(f"{path}: holds question {others[0]}, which is not of shard {shard}; choose another --output")


# --- putting together


@dataclass(frozen=True)
class Line:
    """Where a finished question stands. begin, size: bytes."""

    path: Path
    begin: int
    size: int
    question: str


@dataclass
class Merged:
    """The lines of shards that belong together, by question index. `add` reads a file, `write` writes them all."""

    lines: dict[int, Line] = field(default_factory=dict)
    sizes: Counter[int] = field(default_factory=Counter)  # shard → lines found
    run: dict[str, Any] | None = None  # what all lines have to say alike
    first: str = ""  # the line that said it
    meta: dict[str, Any] = field(default_factory=dict)  # of that line
    expected: dict[int, int] = field(default_factory=dict)  # shard → its questions

    @property
    def total(self) -> int:
        """The questions of the whole run; 0 where no line says it."""
        return int(self.run["questions"]) if self.run else 0

    @property
    def missing(self) -> int:
        return self.total - len(self.lines)

    def add(self, path: Path) -> None:
        """Reads a shard. Raises UserError where it does not belong to those before, or holds a question again."""
        for where, begin, line in _lines(path):
            meta, question = self._read(line, where)
            about = meta["shard"]
            self._check(where, meta, about)
            self.sizes[about["index"]] += 1
            self.expected[about["index"]] = about["size"]
            self._put(where, meta["index"], Line(path, begin, len(line), question))

    def add_unfinished(self, path: Path) -> None:
        """Reads what a merged file of the same run holds already: where a shard has the line too, the shard's stays."""
        for where, begin, line in _lines(path):
            meta, question = self._read(line, where, sharded=False)
            known = self.lines.get(meta["index"])
            if self.run is None or (recorded_fingerprint(meta), meta["seed"]) != (
                self.run["fingerprint"],
                self.run["seed"],
            ):
                raise UserError(f"{where}: not of the run of these shards; choose another --output")
            if known is not None and known.question != question:
                raise UserError(f"{where}: holds another question than {known.path}; choose another --output")
            self.lines.setdefault(meta["index"], Line(path, begin, len(line), question))

    def _read(self, line: bytes, where: str, sharded: bool = True) -> tuple[dict[str, Any], str]:
        try:
            with uninterrupted():
                record = json.loads(line)
            meta, question = record["meta"], record["question"]
            _ = meta["index"], meta["seed"], recorded_fingerprint(meta)
            if sharded:
                _ = [int(meta["shard"][key]) for key in ("index", "of", "size", "questions")]
        except (ValueError, KeyError, TypeError):
            kind = "a line of a run with --shard" if sharded else "a line of a tree file of Arbor"
            raise UserError(f"{where}: expected {kind}") from None
        return meta, str(question)

    def _check(self, where: str, meta: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        said = {
            "fingerprint": recorded_fingerprint(meta),
            "seed": meta["seed"],
            **{key: about[key] for key in ("of", "questions", "hash")},
        }
        if self.run is None:
            self.run, self.first, self.meta = said, where, dict(meta)
        for key, words in _DIFFERENT.items():
            if said[key] != self.run[key]:
                raise UserError(f"{where}: {words} than {self.first}; these shards do not belong together")

    def _put(self, where: str, index: int, line: Line) -> None:
        if index in self.lines:
            raise UserError(f"{where}: question {index} stands in {self.lines[index].path}, too")
        self.lines[index] = line

    def what_is_missing(self) -> str:
        """Which shards are not whole, for people."""
        assert self.run is not None
        absent = [f"{index}/{self.run['of']}" for index in range(self.run["of"]) if not self.sizes[index]]
        short = [
            f"shard {index}/{self.run['of']} has {self.sizes[index]} of {size} questions"
            for index, size in sorted(self.expected.items())
            if self.sizes[index] < size
        ]
        return "; ".join(([f"nothing of shard {', '.join(absent)}"] if absent else []) + short)

    def write(self, output: Path) -> Iterator[dict[str, Any]]:
        """Writes the lines in the order of the questions, whole or not at all, and gives each record as it goes by.
        They say no more of which shard they come from: the file is that of the undivided run."""
        with write_whole(output) as target:
            for _, line in sorted(self.lines.items()):
                with line.path.open("rb") as source, uninterrupted():
                    source.seek(line.begin)
                    record: dict[str, Any] = json.loads(source.read(line.size))
                record["meta"].pop("shard", None)
                target.write(encode_line(record))
                yield record


_DIFFERENT = {
    "fingerprint": "another configuration or model",
    "seed": "another seed",
    "of": "another number of shards",
    "questions": "another number of questions",
    "hash": "other questions",
}


def _lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """(where, its first byte, line) of a tree file; the torn last line of a killed run is left out. Raises UserError,
    also where a run still writes the file."""
    with reading(path), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: a run is still writing it; wait for it") from None
        begin = 0
        for number, line in enumerate(file, start=1):
            if torn(line):
                return
            yield f"{path}:{number}", begin, line
            begin += len(line)


def check_once(rows: Sequence[Any]) -> None:
    """Raises UserError where two rows of files that are one run answer the same question (`meta.index`, or `idx`)."""
    seen: dict[Any, str] = {}
    for row in rows:
        index = (row.fields.get("meta") or {}).get("index", row.fields.get("idx"))
        if index is not None and seen.setdefault(index, row.where) != row.where:
            raise UserError(
                f"{row.where}: question {index} stands in {seen[index]}, too; --pool takes the parts of one run"
            )

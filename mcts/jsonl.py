"""JSON lines: read with file and line in every error, written a line at a time."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mcts.errors import UserError


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No garbage collection meanwhile: where millions of objects are made and kept, it would walk them again and again
    and find nothing (half the time of reading a tree of 10⁵ nodes)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, item) of a .jsonl file line by line, or of a .json file."""
    if path.suffix != ".json":
        yield from read_lines(path)
        return
    data = parse_json("".join(line for _, line in _texts(path)), str(path))
    data = data.get("example") if isinstance(data, dict) else data
    if not isinstance(data, list):
        raise UserError(f'{path}: expected a list of items or {{"example": [...]}}')
    for number, item in enumerate(data):
        yield f"{path}: item {number}", item


def read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, value) of every line of a JSONL file that is not empty. Raises UserError with file and line."""
    for where, line in _texts(path):
        if line.strip():
            yield where, parse_json(line, where)


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of every line of a JSONL file that is not empty. Raises UserError with file and line."""
    for where, value in read_lines(path):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}")
        yield where, value


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """(where, line) of a text file, whether or not it begins with a byte order mark."""
    with reading(path), path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            yield f"{path}:{number}", line


@contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Raises UserError where the body cannot read what stands at `where`, or finds no text in it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror or error}") from None


def parse_line(line: bytes, where: str) -> Any:
    """The value of one line. Raises UserError."""
    with reading(where):
        return parse_json(line.decode("utf-8-sig"), where)


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text that stands at `where`. Raises UserError."""
    try:
        with uninterrupted():
            return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""  # of a .json file
        raise UserError(f"{where}: not valid JSON: {error.msg} ({line}column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise UserError(f"{where}: cannot be read as JSON: {error}") from None


def encode_line(record: Mapping[str, Any]) -> bytes:
    try:
        with uninterrupted():
            text = json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        text = json.dumps(record).encode()
    return text + b"\n"


@contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that is at `path` when the body ends, or not at all: it is written beside it and takes its place at once.
    What is no regular file, such as a pipe, is written as it is. Raises UserError where it cannot be written."""
    regular = path.is_file() or not path.exists()
    target = Path(os.path.realpath(path)) if regular else path
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished") if regular else target
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            if regular:
                os.fsync(file.fileno())
        if target.is_file():
            os.chmod(unfinished, target.stat().st_mode)
        if regular:
            os.replace(unfinished, target)
    except OSError as error:
        if error.filename not in (None, str(unfinished)):  # of something else that the body does
            raise
        raise unwritable(path, error) from None
    finally:
        if regular:
            unfinished.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all. Raises UserError."""
    with write_whole(path) as file:
        file.write(text.encode())


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSONL file, whole or not at all. Raises UserError."""
    with write_whole(path) as file:
        file.writelines(map(encode_line, records))


def unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written: {error.strerror}")

"""Rows of a table in any file form that people have: JSON, JSON lines, CSV, TSV, Parquet, and each of them gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from mcts.errors import UserError
from mcts.jsonl import parse_json, reading

Row = Mapping[str, Any]
FORMS = ".jsonl, .json, .csv, .tsv or .parquet, each also with .gz"
_LISTS = ("data", "example", "examples", "rows", "instances", "items")
_CELL_CHARACTERS = 1 << 24  # the csv module's own bound is shorter than some solutions


def read_rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """(where, row) of a file, one at a time where its form allows it; `where` names file and line, or item.

    A .json file is a list of objects, an object that holds one (`{"data": [...]}`), an object of objects or of columns,
    or lines; a .jsonl file may also be a list. An empty cell of a table is no key. Raises UserError.
    """
    path = Path(path)
    packed = path.suffix.lower() == ".gz"
    form = Path(path.stem if packed else path.name).suffix.lower()
    if form not in (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"):
        raise UserError(f"{path}: the ending {form or '(none)'} is not known; expected {FORMS}")
    with reading(path):
        try:
            yield from _parquet(path, packed) if form == ".parquet" else _read(path, form, packed)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path}: cannot be unpacked: {error}") from None


def _read(path: Path, form: str, packed: bool) -> Iterator[tuple[str, Row]]:
    with cast(TextIO, (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="")) as lines:
        if form in (".csv", ".tsv"):
            yield from _table(path, lines, "\t" if form == ".tsv" else "")
        else:
            yield from _json(path, lines, lined=form != ".json")


def _json(path: Path, lines: Iterable[str], lined: bool) -> Iterator[tuple[str, Row]]:
    """lined: one object a line, unless the text begins as a list; else one document, unless there are several."""
    filled = ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(filled, None)
    if first is None:
        return
    if lined and not first[1].lstrip().startswith("["):
        for where, line in itertools.chain([first], filled):
            yield where, _object(parse_json(line, where), where)
        return
    several = [first, *filled]
    where = first[0] if lined else str(path)
    try:
        document = parse_json("".join(line for _, line in several), where)
    except UserError:
        if lined or not _whole(first[1]):  # not lines either
            raise
        document = [parse_json(line, where) for where, line in several]
        yield from ((where, _object(row, where)) for (where, _), row in zip(several, document, strict=True))
        return
    yield from _items(where, document)


def _whole(line: str) -> bool:
    """Whether a line is a JSON object by itself."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _items(where: str, document: Any) -> Iterator[tuple[str, Row]]:
    """The rows of a JSON document. Raises UserError where it has none."""
    rows = document
    if isinstance(document, dict):
        values = list(document.values())
        tables = [document[name] for name in _LISTS if isinstance(document.get(name), list)]
        tables += [one for one in values if isinstance(one, list) and one and isinstance(one[0], dict)]
        if tables:
            rows = tables[0]
        elif values and all(isinstance(one, dict) for one in values):
            rows = [{"id": name, **one} for name, one in document.items()]
        elif values and values[0] and all(isinstance(one, list) and len(one) == len(values[0]) for one in values):
            rows = [dict(zip(document, cells, strict=True)) for cells in zip(*values, strict=True)]
        elif any(isinstance(one, str) for one in values):
            rows = [document]
    if not isinstance(rows, list):
        raise UserError(f'{where}: expected a list of items or {{"data": [...]}}')
    for number, row in enumerate(rows):
        yield f"{where}: item {number}", _object(row, f"{where}: item {number}")


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with a question, found {type(row).__name__}")
    return row


def _table(path: Path, lines: TextIO, separator: str) -> Iterator[tuple[str, Row]]:
    """The rows of a text table whose first line names the columns. separator: "" takes the one that this line has."""
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARACTERS))
    head = lines.readline()
    separator = separator or max(",;\t", key=head.count)
    table = csv.reader(itertools.chain([head], lines), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in next(table, [])]
        for cells in table:
            where = f"{path}:{table.line_num}"
            if cells and len(cells) != len(names):
                raise UserError(f"{where}: expected {len(names)} cells, as the first line has, found {len(cells)}")
            if any(cell.strip() for cell in cells):
                yield where, {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip()}
    except csv.Error as error:
        raise UserError(f"{path}:{table.line_num}: not a table of cells: {error}") from None


def _parquet(path: Path, packed: bool) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs the package pyarrow (pip install pyarrow)") from None
    try:
        file = parquet.ParquetFile(io.BytesIO(gzip.decompress(path.read_bytes())) if packed else path)
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
        for number, row in enumerate(rows):
            yield f"{path}: row {number}", {name: cell for name, cell in row.items() if cell is not None}
    except ArrowException as error:
        raise UserError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None

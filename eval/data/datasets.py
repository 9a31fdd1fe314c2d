"""Data sets as questions with their accepted answers: known ones by name, any other file by its columns.

Known sets are read from a folder laid out as ToRA ships them (`FOLDER/gsm8k/test.jsonl`, ...); four of them also
through the `datasets` library where it is installed and a hub can be reached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.grading.extract import boxes, last_box

Row = Mapping[str, Any]


class DataError(ValueError):
    """A data set that cannot be read: what is wrong, where, and what would be right."""


@dataclass(frozen=True)
class Item:
    """A question; `answers` are all accepted golds, `fields` the row it came from."""

    index: int
    question: str
    answers: tuple[str, ...]
    fields: Row = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where a known data set is and how a row becomes (question, answers)."""

    path: str  # below the folder
    read: Callable[[Row], tuple[str, list[str]]]
    hub: tuple[str, str | None, str] | None = None  # repository, configuration, split
    keep: Callable[[Row], bool] = lambda row: True


def _gsm8k(row: Row) -> tuple[str, list[str]]:
    return row["question"], [row["answer"].split("####")[1].strip()]


def _math(row: Row) -> tuple[str, list[str]]:
    if "answer" in row:
        return row.get("problem") or row["question"], _as_list(row["answer"])
    return row["problem"], [last_box(row["solution"]) or ""]


def _columns(question: str, answer: str) -> Callable[[Row], tuple[str, list[str]]]:
    return lambda row: (str(row[question]), _as_list(row[answer]))


def _svamp(row: Row) -> tuple[str, list[str]]:
    row = {key.lower(): value for key, value in row.items()}  # copies differ in the case of their keys
    body = row["body"].strip()
    return f"{body}{'' if body.endswith('.') else '.'} {row['question']}", _as_list(row["answer"])


def _asdiv(row: Row) -> tuple[str, list[str]]:
    return f"{row['body']} {row['question']}", [re.sub(r"\(.*?\)", "", row["answer"]).strip()]


def _tabmwp(row: Row) -> tuple[str, list[str]]:
    title = f'regarding "{row["table_title"]}" ' if row["table_title"] else ""
    choices = f" Please select from the following options: {row['choices']}" if row["choices"] else ""
    return f"Read the following table {title}and answer a question:\n{row['table']}\n{row['question']}{choices}", [
        row["answer"]
    ]


def _as_list(answer: Any) -> list[str]:
    """Accepted answers as text; a number stored as a float loses its trailing ".0"."""
    answers = answer if isinstance(answer, list) else [answer]
    return [str(int(one)) if isinstance(one, float) and one.is_integer() else str(one) for one in answers]


_MAWPS = _columns("input", "target")
DATASETS: dict[str, Source] = {
    "gsm8k": Source("gsm8k/test.jsonl", _gsm8k, ("openai/gsm8k", "main", "test")),
    "math": Source("math/test.jsonl", _math),
    "math500": Source("math500/test.jsonl", _math, ("HuggingFaceH4/MATH-500", None, "test")),
    "math-mario": Source("math/math_testset_annotation.json", _columns("question", "answer")),
    "gsm-hard": Source("gsm-hard/test.jsonl", _MAWPS, ("reasoning-machines/gsm-hard", None, "train")),
    "svamp": Source("svamp/test.jsonl", _svamp, ("ChilleD/SVAMP", None, "test")),
    "tabmwp": Source("tabmwp/problems_test1k.json", _tabmwp),
    "asdiv": Source("asdiv/test.jsonl", _asdiv, keep=lambda row: ";" not in row["answer"]),
    "mawps": Source("mawps/test.jsonl", _MAWPS),
    **{name: Source(f"mawps/{name}.jsonl", _MAWPS) for name in ("singleeq", "singleop", "addsub", "multiarith")},
}

# MATH test golds that the rule "the last box" gets wrong, by position in the 5,000 rows: several boxes that are one
# answer together, several of which any is accepted, and two whose text is no answer.
_ALL_BOXES = frozenset({414, 2152, 2549, 2656, 2703, 4559, 4562, 4860})
_ANY_BOX = frozenset({333, 2716, 2912, 2936})
_REPLACED = {3526: "Saturday", 4060: "6"}


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    question: str = "question",
    answer: str = "answer",
    correct_golds: bool = False,
    split: str = "test",
) -> list[Item]:
    """The items of a known data set, or of a .json, .jsonl or .parquet file by the names of its columns.

    folder: where the known sets lie; None asks the hub. split: FOLDER/NAME/SPLIT.jsonl, where there is one.
    correct_golds: repair the MATH golds listed in this module. Raises DataError.
    """
    source = DATASETS.get(name)
    if source is None:
        path = Path(name)
        if path.suffix not in (".json", ".jsonl", ".parquet"):
            raise DataError(f"{name}: neither a data set ({', '.join(DATASETS)}) nor a .json, .jsonl or .parquet file")
        source, rows = Source(name, _columns(question, answer)), _rows(path)
    else:
        rows = _rows(_path(Path(folder), name, source, split)) if folder is not None else _hub_rows(name, source)
    items: list[Item] = []
    for row in rows:
        index = len(items)
        try:
            if not source.keep(row):
                continue
            text, answers = source.read(row)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise DataError(
                f"{source.path}, row {index}: the columns do not fit ({error!r}); it has {', '.join(row)}"
            ) from error
        if correct_golds and name == "math" and split == "test":
            answers = corrected(index, row, answers)
        items.append(Item(index, text.strip(), tuple(answers), row))
    return items


def _path(folder: Path, name: str, source: Source, split: str) -> Path:
    path = folder / name / f"{split}.jsonl"
    return folder / source.path if split == "test" and not path.exists() else path


def corrected(index: int, row: Row, answers: list[str]) -> list[str]:
    """The golds of a MATH test row with the known slips repaired."""
    if index in _ALL_BOXES:
        return [", ".join(boxes(row["solution"]))]
    if index in _ANY_BOX:
        return boxes(row["solution"])
    return [_REPLACED[index]] if index in _REPLACED else answers


def _rows(path: Path) -> Iterator[Row]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".jsonl":
            for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
                if line.strip():
                    yield _object(_json(line, f"{path}, line {number}"), f"{path}, line {number}")
        else:
            content = _json(path.read_text(encoding="utf-8-sig"), str(path))
            rows = content.get("example", list(content.values())) if isinstance(content, dict) else content
            if not isinstance(rows, list):
                raise DataError(f"{path}: expected a list of rows, found {type(rows).__name__}")
            yield from (_object(row, f"{path}, row {number}") for number, row in enumerate(rows))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the folder that holds it") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    return row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs the package pyarrow") from error
    yield from parquet.read_table(path).to_pylist()


def _hub_rows(name: str, source: Source) -> Iterator[Row]:
    if source.hub is None:
        raise DataError(f"{name}: not taken from a hub; give the folder that holds {source.path}")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(f"{name}: give a folder that holds {source.path}, or install the package datasets") from error
    repository, configuration, split = source.hub
    yield from load_dataset(repository, configuration, split=split)

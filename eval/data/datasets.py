"""Data sets by name: where each lies, how a row becomes a question with its accepted answers, which problems it has.

Known sets are read from a folder laid out as ToRA ships them (`FOLDER/gsm8k/test.jsonl`, ...); four of them also
through the `datasets` library where it is installed and a hub can be reached. Another package adds one with
`DATASETS.add(name, DataSet(...))`, or with an entry point of the group `arbor.datasets` that names a DataSet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.data.questions import read_question
from eval.data.rows import Row, read_rows
from eval.grading.extract import boxes
from eval.grading.gold import read_gold
from mcts.errors import UserError, nearest
from mcts.registry import Registry


@dataclass(frozen=True)
class Item:
    """A question; `answers` are all accepted golds, `fields` the row it came from."""

    index: int
    question: str
    answers: tuple[str, ...]
    fields: Row = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """Where a data set is and what its rows say.

    path: of its test split below the folder; SPLIT.jsonl beside it holds another one. read: (question, golds) of a row.
    hub: repository, configuration, split. keep: whether a row is part of the set. level: whose worked examples suit it.
    correct: position, row and golds of the test split → golds with its known slips repaired.
    """

    path: str
    read: Callable[[Row], tuple[str, Sequence[str]]]
    hub: tuple[str, str | None, str] | None = None
    keep: Callable[[Row], bool] = lambda row: True
    level: Literal["gsm8k", "math"] = "gsm8k"
    correct: Callable[[int, Row, Sequence[str]], Sequence[str]] | None = None


def _math(row: Row) -> tuple[str, Sequence[str]]:
    return row.get("problem") or row["question"], read_gold(row["answer"] if "answer" in row else row["solution"])


def _columns(question: str, answer: str) -> Callable[[Row], tuple[str, Sequence[str]]]:
    return lambda row: (str(row[question]), read_gold(row[answer]))


def _svamp(row: Row) -> tuple[str, Sequence[str]]:
    row = {key.lower(): value for key, value in row.items()}  # copies differ in the case of their keys
    body = row["body"].strip()
    return f"{body}{'' if body.endswith('.') else '.'} {row['question']}", read_gold(row["answer"])


def _asdiv(row: Row) -> tuple[str, Sequence[str]]:
    return f"{row['body']} {row['question']}", [re.sub(r"\(.*?\)", "", row["answer"]).strip()]


def _tabmwp(row: Row) -> tuple[str, Sequence[str]]:
    title = f'regarding "{row["table_title"]}" ' if row["table_title"] else ""
    choices = f" Please select from the following options: {row['choices']}" if row["choices"] else ""
    return f"Read the following table {title}and answer a question:\n{row['table']}\n{row['question']}{choices}", [
        row["answer"]
    ]


# MATH test golds that the rule "the last box" gets wrong, by position in the 5,000 rows: several boxes that are one
# answer together, several of which any is accepted, and two whose text is no answer.
_ALL_BOXES = frozenset({414, 2152, 2549, 2656, 2703, 4559, 4562, 4860})
_ANY_BOX = frozenset({333, 2716, 2912, 2936})
_REPLACED = {3526: "Saturday", 4060: "6"}


def corrected(index: int, row: Row, answers: Sequence[str]) -> Sequence[str]:
    """The golds of a MATH test row with the known slips repaired."""
    if index in _ALL_BOXES:
        return [", ".join(boxes(row["solution"]))]
    if index in _ANY_BOX:
        return boxes(row["solution"])
    return [_REPLACED[index]] if index in _REPLACED else answers


_GSM8K = _columns("question", "answer")
_MAWPS = _columns("input", "target")
_SETS = {
    "gsm8k": DataSet("gsm8k/test.jsonl", _GSM8K, ("openai/gsm8k", "main", "test")),
    "math": DataSet("math/test.jsonl", _math, level="math", correct=corrected),
    "math500": DataSet("math500/test.jsonl", _math, ("HuggingFaceH4/MATH-500", None, "test"), level="math"),
    "math-mario": DataSet("math/math_testset_annotation.json", _GSM8K, level="math"),
    "gsm-hard": DataSet("gsm-hard/test.jsonl", _MAWPS, ("reasoning-machines/gsm-hard", None, "train")),
    "svamp": DataSet("svamp/test.jsonl", _svamp, ("ChilleD/SVAMP", None, "test")),
    "tabmwp": DataSet("tabmwp/problems_test1k.json", _tabmwp),
    "asdiv": DataSet("asdiv/test.jsonl", _asdiv, keep=lambda row: ";" not in row["answer"]),
    "mawps": DataSet("mawps/test.jsonl", _MAWPS),
    **{name: DataSet(f"mawps/{name}.jsonl", _MAWPS) for name in ("singleeq", "singleop", "addsub", "multiarith")},
}
DATASETS: Registry[DataSet] = Registry("data set", "arbor.datasets", {})
for _name, _set in _SETS.items():
    DATASETS.add(_name, _set)


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    question: str | None = None,
    answer: str | None = None,
    correct_golds: bool = False,
    split: str = "test",
) -> list[Item]:
    """The items of a known data set, or of any question file by the names of its columns (None: the usual ones).

    folder: where the known sets lie; None asks the hub. split: FOLDER/NAME/SPLIT.jsonl, where there is one.
    correct_golds: repair the golds that the set is known to have wrong. Raises UserError.
    """
    if name not in DATASETS:
        return _own(name, question, answer)
    source = DATASETS[name]
    rows = read_rows(_path(Path(folder), name, source, split)) if folder is not None else _hub_rows(name, source)
    items: list[Item] = []
    for where, row in rows:
        index = len(items)
        try:
            if not source.keep(row):
                continue
            text, answers = source.read(row)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{where}: the columns do not fit ({error!r}); it has {', '.join(row)}") from error
        if correct_golds and source.correct is not None and split == "test":
            answers = source.correct(index, row, answers)
        items.append(Item(index, text.strip(), tuple(answers), row))
    return items


def _own(name: str, question: str | None, answer: str | None) -> list[Item]:
    if not Path(name).suffix:
        raise UserError(f"{name}: no data set{nearest(name, DATASETS)} (known: {', '.join(DATASETS)}), and no file")
    found = (
        read_question(at, row, where, question, answer, need_answer=True)
        for at, (where, row) in enumerate(read_rows(name))
    )
    items = [Item(one.index, one.text.strip(), one.answers, one.item) for one in found]
    if not items:
        raise UserError(f"{name}: no question in it")
    return items


def _path(folder: Path, name: str, source: DataSet, split: str) -> Path:
    path = folder / name / f"{split}.jsonl"
    return folder / source.path if split == "test" and not path.exists() else path


def _hub_rows(name: str, source: DataSet) -> Iterator[tuple[str, Row]]:
    if source.hub is None:
        raise UserError(f"{name}: not taken from a hub; give the folder that holds {source.path}")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UserError(f"{name}: give a folder that holds {source.path}, or install the package datasets") from error
    repository, configuration, split = source.hub
    for number, row in enumerate(load_dataset(repository, configuration, split=split)):
        yield f"{repository}: row {number}", row

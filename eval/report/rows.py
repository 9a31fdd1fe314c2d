"""The rows of result files, saved trees and ToRA-style outputs alike: golds, the prediction, and the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.data.questions import read_answers
from eval.grading.extract import extract
from eval.report.tally import gold_answers
from mcts.errors import UserError
from mcts.jsonl import read_objects
from mcts.search.offline import saved_rule, solutions, top_answer
from mcts.search.rules import path_value
from mcts.trees.file import check_record
from mcts.trees.node import FAILURES, NOT_EVALUATED, walk
from mcts.trees.record import TreeError, from_record


@dataclass(frozen=True)
class Sample:
    """One answer to a question and the value head's (or the search's) opinion of it, None where it has none."""

    answer: str
    value: float | None


@dataclass(frozen=True)
class Row:
    """A question of a file: what was predicted, and the samples that votes are taken over.

    per_run: the samples come from separate runs, so k of them cost k runs; else one search gave them all.
    """

    where: str
    golds: tuple[str, ...]
    prediction: str
    samples: tuple[Sample, ...]
    per_run: bool
    fields: Mapping[str, Any]


def read_rows(path: Path, policy: str) -> list[Row]:
    """Every line of a file of saved trees or of ToRA-style outputs. Raises UserError with file and line."""
    rows = []
    for where, record in read_objects(path):
        check_record(where, record)
        if "react" in record:
            rows.append(_tree_row(where, record))
        elif (fault := tora_fault(record)) is None:
            rows.append(_tora_row(where, record, policy))
        else:
            raise UserError(f"{where}: neither a saved tree nor a ToRA-style row: {fault}")
    if not rows:
        raise UserError(f"{path}: no line in it")
    return rows


def _tree_row(where: str, record: dict[str, Any]) -> Row:
    golds = gold_answers(where, record)
    trees = [record["react"], *record.get("runs", [])]
    per_run = len(trees) > 1
    try:
        rule = saved_rule(record)
        found = [_solutions(tree, rule) for tree in trees]
        samples = [sample for every in found for sample in (every[:1] if per_run else every)]
        prediction = top_answer(record) or ""
    except TreeError as error:
        raise UserError(f"{where}: {error}") from None
    return Row(where, golds, prediction, tuple(samples), per_run, record)


def _solutions(tree: dict[str, Any], rule: str) -> list[Sample]:
    """The answers of one search with what their paths are worth, best first; of a search without any, one empty
    answer."""
    listed = isinstance(tree, Mapping) and "solutions" in tree
    found = solutions(tree) if listed else []
    if not listed or rule != "last":
        nodes = [node for node in walk(from_record(tree)) if node.answered]
        if listed:
            tags = {one.get("tag") for one in tree["solutions"]}
            nodes = [node for node in nodes if node.tag in tags]
        found = [(one.final_answer, one.q_value if one.visit_count else path_value(one, rule)) for one in nodes]
    found = sorted((one for one in found if one[0] not in FAILURES), key=lambda one: -one[1])
    known = [Sample(answer, None if value == NOT_EVALUATED else value) for answer, value in found]
    return known or [Sample("", None)]


def tora_fault(record: Mapping[str, Any]) -> str | None:
    """What keeps an object from being a row of a ToRA-style output file, or None."""
    code, pred, score = (record.get(name) for name in ("code", "pred", "score"))
    if not isinstance(code, list) or not code or not all(isinstance(one, str) for one in code):
        return "code: expected a list of texts, one a sample"
    if not isinstance(pred, list) or len(pred) != len(code):
        return f"pred: expected a list of {len(code)}, as long as code"
    if score is not None and not (isinstance(score, list) and all(isinstance(one, bool) for one in score)):
        return "score: expected a list of true and false"
    return None if isinstance(record.get("gt"), str | int | float) else "gt: expected a text or a number"


def _tora_row(where: str, record: dict[str, Any], policy: str) -> Row:
    """The recorded answers under `tora`; other policies read the trajectory, whose notation is still intact."""
    recorded = policy == "tora"
    answers = record["pred"] if recorded else [extract(code) for code in record["code"]]
    golds = (str(record["gt"]),) if recorded else _intact_golds(where, record)
    samples = tuple(Sample("" if answer is None else str(answer), None) for answer in answers)
    return Row(where, golds, samples[0].answer, samples, True, record)


def _intact_golds(where: str, record: dict[str, Any]) -> tuple[str, ...]:
    """The golds as their source wrote them, not in ToRA's normal form."""
    source = {key: record[key] for key in ("answer", "solution") if record.get(key) is not None}
    return read_answers(source, where) or (str(record["gt"]),)

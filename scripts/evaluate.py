"""Scores saved trees and ToRA-style output files: accuracy, votes, best of n, pass@k, with intervals and cost.

python scripts/evaluate.py FILE... [--policy tora] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from eval.grading.extract import extract, last_box
from eval.grading.grader import POLICIES, Verdict, grade
from eval.report.scores import AVG10, Score, accuracy, avg_at_10, by_group, mean_score, pass_at_k, vote
from mcts.errors import UserError
from mcts.jsonl import read_objects
from mcts.question import Question
from mcts.search.offline import solutions, top_answer
from mcts.trees.file import check_record
from mcts.trees.node import FAILURES, walk
from mcts.trees.record import TreeError, from_record
from scripts.assembly import check_output, run_command

COSTS = ("tokens_generated", "tokens_computed", "simulations", "snippets", "code_seconds", "wall_seconds")
GROUPS = ("type", "level", "human_type", "Type")


@dataclass(frozen=True)
class Sample:
    """One answer to a question and the value head's (or the search's) opinion of it."""

    answer: str
    value: float


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


# --- reading ---------------------------------------------------------------------------------------------------


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
    golds = Question(0, record, where).answers
    if not golds:
        raise UserError(f'{where}: no "answer" to grade against')
    trees = [record["react"], *record.get("runs", [])]
    per_run = len(trees) > 1
    try:
        samples = [sample for tree in trees for sample in (_solutions(tree)[:1] if per_run else _solutions(tree))]
        prediction = top_answer(record) or ""
    except TreeError as error:
        raise UserError(f"{where}: {error}") from None
    return Row(where, golds, prediction, tuple(samples), per_run, record)


def _solutions(tree: dict[str, Any]) -> list[Sample]:
    """The answers of one search, best first; of a search without any, one empty answer."""
    if isinstance(tree, Mapping) and "solutions" in tree:
        found = [Sample(answer, value) for answer, value in solutions(tree)]
    else:
        nodes = [node for node in walk(from_record(tree)) if node.answered]
        found = [Sample(node.final_answer, node.q_value if node.visit_count else node.value) for node in nodes]
    found = [sample for sample in found if sample.answer not in FAILURES]
    return sorted(found, key=lambda sample: -sample.value) or [Sample("", -1.0)]


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
    golds = (str(record["gt"]),) if recorded else _intact_golds(record)
    samples = tuple(Sample("" if answer is None else str(answer), 0.0) for answer in answers)
    return Row(where, golds, samples[0].answer, samples, True, record)


def _intact_golds(record: dict[str, Any]) -> tuple[str, ...]:
    if isinstance(record.get("answer"), list):
        return tuple(map(str, record["answer"]))
    answer = str(record.get("answer", ""))
    if "####" in answer:
        return (answer.rsplit("####", 1)[1].strip(),)
    return (answer or last_box(str(record.get("solution", ""))) or str(record["gt"]),)


# --- scoring ---------------------------------------------------------------------------------------------------


def evaluate(rows: list[Row], policy: str, audit: list[dict[str, Any]], progress: bool = True) -> dict[str, Any]:
    """Methods with their scores and costs, and accuracy by group; undecided pairs are appended to `audit`."""
    pairs = [(row.golds, answer) for row in rows for answer in {row.prediction, *(one.answer for one in row.samples)}]
    with ThreadPoolExecutor() as threads:
        graded = threads.map(lambda pair: grade(pair[0], pair[1], policy), pairs)
        grades = dict(zip(pairs, tqdm(graded, total=len(pairs), desc="grading", disable=not progress), strict=True))
    for row in rows:
        found = grades[row.golds, row.prediction]
        if found.verdict is Verdict.UNDECIDED:
            audit.append({"where": row.where, "gold": row.golds, "prediction": row.prediction, "reason": found.reason})

    def right(row: Row, answer: str) -> bool | None:
        return grades[row.golds, answer].equal

    predictions = [right(row, row.prediction) for row in rows]
    methods = [_method("prediction", accuracy(predictions), rows, 1.0)]
    count = min(len(row.samples) for row in rows)
    if max(len(row.samples) for row in rows) > 1:
        methods += _voting(rows, right, policy, count)
    groups = {
        name: by_group([row.fields[name] for row in rows], predictions)
        for name in GROUPS
        if all(name in row.fields for row in rows)
    }
    return {"n": len(rows), "policy": policy, "methods": methods, "by": {k: _plain(v) for k, v in groups.items()}}


def _voting(rows: list[Row], right: Callable[[Row, str], bool | None], policy: str, count: int) -> list[dict[str, Any]]:
    """Maj@k, value-weighted vote, best of n by value, mean and pass@k over the samples."""

    def same(first: str, second: str) -> bool:
        return first == second or grade(first, second, policy).verdict is Verdict.EQUAL

    def voted(k: int | None, weighted: bool) -> Score:
        grades = []
        for row in rows:
            cast = [one for one in row.samples[:k] if one.answer]
            weights = [1.0 + max(-1.0, one.value) for one in cast] if weighted else None
            winner = vote([one.answer for one in cast], same, weights)
            grades.append(False if winner is None else right(row, cast[winner].answer))
        return accuracy(grades)

    ks = sorted({2**i for i in range(count.bit_length()) if 2**i <= count} | {count})
    separate = all(row.per_run for row in rows)
    methods = []
    for k in ks if separate else []:
        methods.append(_method(f"maj@{k}", voted(k, False), rows, k / count))
    methods += [
        _method("maj@n", voted(None, False), rows, 1.0),
        _method("weighted@n", voted(None, True), rows, 1.0),
        _method("best of n", accuracy(right(r, max(r.samples, key=lambda s: s.value).answer) for r in rows), rows, 1.0),
        _method("mean of n", mean_score([_share(row, right) for row in rows]), rows, 1.0),
    ]
    for k in ks:
        shares = [pass_at_k(len(row.samples), _right_samples(row, right), k) for row in rows]
        methods.append(_method(f"pass@{k}", mean_score(shares), rows, k / count if separate else 1.0))
    return methods


def _right_samples(row: Row, right: Callable[[Row, str], bool | None]) -> int:
    return sum(right(row, one.answer) is True for one in row.samples)


def _share(row: Row, right: Callable[[Row, str], bool | None]) -> float:
    return _right_samples(row, right) / len(row.samples)


def _method(name: str, score: Score, rows: list[Row], cost_share: float) -> dict[str, Any]:
    """A score beside what it cost a question, so that methods can be compared at equal compute."""
    costs = {}
    for cost in COSTS:
        values = [(row.fields.get("meta") or {}).get(cost) for row in rows]
        if all(isinstance(value, int | float) for value in values):
            costs[cost] = round(cost_share * sum(values) / len(rows), 3)
    return {"method": name, **_plain({"score": score})["score"], "cost_per_question": costs}


def _plain(scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
    return {name: {k: round(v, 4) for k, v in asdict(score).items()} for name, score in scores.items()}


# --- report ----------------------------------------------------------------------------------------------------


def table(name: str, result: dict[str, Any]) -> str:
    costs = [cost for cost in COSTS if cost in result["methods"][0]["cost_per_question"]]
    lines = [f"{name}   n = {result['n']}, policy {result['policy']}"]
    lines.append(f"{'':22}{'%':>7}  {'95 % interval':18}{'undecided':>9}" + "".join(f"{cost:>18}" for cost in costs))
    for one in result["methods"]:
        lines.append(_line(one["method"], one) + "".join(f"{one['cost_per_question'][cost]:>18.1f}" for cost in costs))
    for group, scores in result["by"].items():
        lines.append(f"by {group}")
        lines += [_line("  " + key, one) + f"   n = {one['n']}" for key, one in scores.items()]
    return "\n".join(lines)


def _line(name: str, score: Mapping[str, Any]) -> str:
    interval = f"[{score['low']:.2f}, {score['high']:.2f}]"
    return f"{name[:22]:22}{score['percent']:7.2f}  {interval:18}{score['undecided']:9}"


TASKS = ("gsm8k", "math", "gsm-hard", "svamp", "tabmwp", "asdiv", "singleeq", "singleop", "addsub", "multiarith")
HEADER = ("task", "n", "%", "95 %", "maj@n", "tool rounds", "tokens", "seconds")


def by_data_set(read: Mapping[Path, list[Row]]) -> dict[str, list[Row]]:
    """The rows of files that are parts of one data set, together; of a question that occurs twice, the last."""
    pooled: dict[str, dict[Any, Row]] = {}
    for path, rows in read.items():
        if name := data_name(path):
            pooled.setdefault(name, {}).update({_identity(row): row for row in rows})
    return {name: list(rows.values()) for name, rows in pooled.items()}


def _identity(row: Row) -> Hashable:
    """Which question of its data set a row answers."""
    index = row.fields.get("idx")
    return row.where if index is None else (str(index), str(row.fields.get("question")))


def tasks_table(sets: Mapping[str, list[Row]], policy: str) -> str:
    """ToRA's ten tasks on one line each, MAWPS also pooled, and AVG@10 where all seven data sets are there."""
    lines, figures = [HEADER], {}
    for name, rows in sorted(sets.items(), key=lambda one: AVG10.index(one[0])):
        for task in sorted({row.fields.get("type") for row in rows} & set(TASKS), key=TASKS.index):
            lines.append(_task(task, [row for row in rows if row.fields["type"] == task], policy)[1])
        figures[name], line = _task(name, rows, policy)
        lines.append(line)
    if set(AVG10) <= set(figures):
        lines.append(("AVG@10", "", f"{avg_at_10(figures):.2f}", *[""] * (len(HEADER) - 3)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ([cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(row) for row in rows)


def _task(name: str, rows: list[Row], policy: str) -> tuple[float, tuple[str, ...]]:
    """Accuracy and the line of a task. Rounds, tokens and seconds are a question's means."""
    result = evaluate(rows, policy, [], progress=False)
    methods = {one["method"]: one for one in result["methods"]}
    first, voted = methods["prediction"], methods.get("maj@n")
    rounds = [count for row in rows for count in _tool_rounds(row.fields)]
    cost = first["cost_per_question"]
    return first["percent"], (
        name, str(len(rows)), f"{first['percent']:.2f}", f"{first['low']:.1f}–{first['high']:.1f}",
        f"{voted['percent']:.2f}" if voted else "", f"{sum(rounds) / len(rounds):.2f}" if rounds else "",
        f"{cost['tokens_generated']:.0f}" if "tokens_generated" in cost else "",
        f"{cost['wall_seconds']:.1f}" if "wall_seconds" in cost else "",
    )  # fmt: skip


def _tool_rounds(record: Mapping[str, Any]) -> list[int]:
    """How many programs each sample ran."""
    return (record.get("meta") or {}).get("tool_calls") or [code.count("```output") for code in record.get("code", ())]


def data_name(path: Path) -> str:
    """The data set in a ToRA-style path (.../gsm8k/test_....jsonl), or ""."""
    return next((part for part in reversed(path.parts) if re.sub(r"\W", "-", part) in AVG10), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="saved trees or ToRA-style outputs")
    parser.add_argument("--policy", default="default", choices=list(POLICIES))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--audit", type=Path, default=Path("undecided.jsonl"), help="where undecided pairs are listed")
    options = parser.parse_args()
    check_output(options.audit, *options.files)
    audit: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    read = {path: read_rows(path, options.policy) for path in options.files}
    for path, rows in read.items():
        results[str(path)] = evaluate(rows, options.policy, audit)
        if not options.json:
            print(table(str(path), results[str(path)]) + "\n")
    report: dict[str, Any] = {"files": results, "undecided": len(audit)}
    sets = by_data_set(read)
    if set(AVG10) <= set(sets):
        report["AVG@10"] = avg_at_10({name: _task(name, rows, options.policy)[0] for name, rows in sets.items()})
    if audit:
        with options.audit.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in audit)
        report["audit"] = str(options.audit)
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        if len(sets) > 1 or len(read) > len(sets) > 0:
            print(tasks_table(sets, options.policy) + "\n")
        print("\n".join(f"{key}: {value}" for key, value in report.items() if key != "files"))
    return 0


if __name__ == "__main__":
    run_command(main)

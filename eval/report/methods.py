"""How right the rows of result files are: accuracy, votes, best of n, mean and pass@k, by group and by data set."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.grading.grader import Grade, Verdict, grade, grade_all
from eval.report.columns import COST, columns
from eval.report.rows import Row
from eval.report.scores import AVG10, Score, accuracy, avg_at_10, by_group, mean_score, pass_at_k
from eval.report.table import text_table
from mcts.search.voting import Candidate, decide

GROUPS = ("type", "level", "human_type", "Type")
TASKS = ("gsm8k", "math", "gsm-hard", "svamp", "tabmwp", "asdiv", "singleeq", "singleop", "addsub", "multiarith")
HEADER = ("task", "n", "%", "95 %", "maj@n", "tool rounds", "tokens", "seconds")
Right = Callable[[Row, str], bool | None]


def evaluate(
    rows: list[Row],
    policy: str,
    audit: list[dict[str, Any]],
    along: Callable[[Iterator[Grade], int], Iterator[Grade]] = lambda grades, total: grades,
) -> dict[str, Any]:
    """Methods with their scores and costs, and accuracy by group; undecided pairs are appended to `audit`.

    along: shows how far the grading is: (grades, how many) → the same grades.
    """
    pairs = [(row.golds, answer) for row in rows for answer in {row.prediction, *(one.answer for one in row.samples)}]
    grades = dict(zip(pairs, along(grade_all(pairs, policy), len(pairs)), strict=True))
    for row in rows:
        found = grades[row.golds, row.prediction]
        if found.verdict is Verdict.UNDECIDED:
            audit.append({"where": row.where, "gold": row.golds, "prediction": row.prediction, "reason": found.reason})

    def right(row: Row, answer: str) -> bool | None:
        return grades[row.golds, answer].equal

    predictions = [right(row, row.prediction) for row in rows]
    methods = [_method("prediction", accuracy(predictions), rows, 1.0)]
    if max(len(row.samples) for row in rows) > 1:
        methods += _sampled(rows, right, policy)
    groups = {
        name: by_group([row.fields[name] for row in rows], predictions)
        for name in GROUPS
        if all(name in row.fields for row in rows)
    }
    by = {name: {key: _plain(score) for key, score in scores.items()} for name, scores in groups.items()}
    return {"n": len(rows), "policy": policy, "methods": methods, "by": by}


def _sampled(rows: list[Row], right: Right, policy: str) -> list[dict[str, Any]]:
    """Maj@k, mean and pass@k over the samples; where values are known, the weighted vote and best of n by them."""
    count = min(len(row.samples) for row in rows)
    ks = sorted({2**i for i in range(count.bit_length()) if 2**i <= count} | {count})
    separate = all(row.per_run for row in rows)
    valued = all(one.value is not None for row in rows for one in row.samples if one.answer)
    methods = [_method(f"maj@{k}", _voted(rows, right, policy, "majority", k), rows, k / count) for k in ks if separate]
    methods.append(_method("maj@n", _voted(rows, right, policy, "majority"), rows, 1.0))
    if valued:
        methods.append(_method("weighted@n", _voted(rows, right, policy, "value_weighted"), rows, 1.0))
        methods.append(_method("best of n", accuracy(right(row, _best(row)) for row in rows), rows, 1.0))
    shares = [_right_samples(row, right) / len(row.samples) for row in rows]
    methods.append(_method("mean of n", mean_score(shares), rows, 1.0))
    for k in ks:
        shares = [pass_at_k(len(row.samples), _right_samples(row, right), k) for row in rows]
        methods.append(_method(f"pass@{k}", mean_score(shares), rows, k / count if separate else 1.0))
    return methods


def _voted(rows: list[Row], right: Right, policy: str, vote: str, k: int | None = None) -> Score:
    """The accuracy of a vote over the first k samples of every row."""

    async def same(answers: Sequence[str], prediction: str) -> bool | None:
        return grade(answers, prediction, policy).equal

    async def judge(row: Row) -> bool | None:
        cast = [Candidate(one.answer, one.value or 0.0, "", 0) for one in row.samples[:k] if one.answer]
        decision = await decide(cast, vote, same)
        return False if decision is None else right(row, decision.final_answer)

    async def judge_all() -> list[bool | None]:
        return [await judge(row) for row in rows]

    return accuracy(asyncio.run(judge_all()))


def _best(row: Row) -> str:
    return max(row.samples, key=lambda one: -1.0 if one.value is None else one.value).answer


def _right_samples(row: Row, right: Right) -> int:
    return sum(right(row, one.answer) is True for one in row.samples)


def _method(name: str, score: Score, rows: list[Row], cost_share: float) -> dict[str, Any]:
    """A score beside what it cost a question, so that methods can be compared at equal compute."""
    records = [row.fields for row in rows]
    figures = {key: column.figure(records) for key, column in columns(COST).items()}
    costs = {key: round(cost_share * figure, 3) for key, figure in figures.items() if figure is not None}
    return {"method": name, **_plain(score), "cost_per_question": costs}


def _plain(score: Score) -> dict[str, Any]:
    return {key: round(value, 4) for key, value in asdict(score).items()}


# --- tables


def methods_table(name: str, result: dict[str, Any]) -> str:
    costs = list(result["methods"][0]["cost_per_question"])
    rows = [
        [one["method"], *_cells(one), *(f"{one['cost_per_question'][cost]:.1f}" for cost in costs)]
        for one in result["methods"]
    ]
    head = ("", "%", "95 % interval", "undecided", *costs)
    tables = [f"{name}   n = {result['n']}, policy {result['policy']}", text_table(head, rows)]
    for group, scores in result["by"].items():
        rows = [[f"  {key}", *_cells(one), str(one["n"])] for key, one in scores.items()]
        tables.append(text_table((f"by {group}", "%", "95 % interval", "undecided", "n"), rows))
    return "\n".join(tables)


def _cells(score: Mapping[str, Any]) -> list[str]:
    return [f"{score['percent']:.2f}", f"[{score['low']:.2f}, {score['high']:.2f}]", str(score["undecided"])]


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
    lines: list[Sequence[str]] = []
    figures = {}
    for name, rows in sorted(sets.items(), key=lambda one: AVG10.index(one[0])):
        for task in [task for task in TASKS if any(row.fields.get("type") == task for row in rows)]:
            lines.append(_task(task, [row for row in rows if row.fields.get("type") == task], policy)[1])
        figures[name], line = _task(name, rows, policy)
        lines.append(line)
    if set(AVG10) <= set(figures):
        lines.append(("AVG@10", "", f"{avg_at_10(figures):.2f}", *[""] * (len(HEADER) - 3)))
    return text_table(HEADER, lines, left=0)


def average(sets: Mapping[str, list[Row]], policy: str) -> float | None:
    """AVG@10, where all seven data sets are there."""
    if not set(AVG10) <= set(sets):
        return None
    return avg_at_10({name: _task(name, rows, policy)[0] for name, rows in sets.items()})


def _task(name: str, rows: list[Row], policy: str) -> tuple[float, tuple[str, ...]]:
    """Accuracy and the line of a task. Rounds, tokens and seconds are a question's means."""
    result = evaluate(rows, policy, [])
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

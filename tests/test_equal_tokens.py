"""Maj@k, best of k, the weighted vote and searches at equal cost, against counting by hand; what is run for it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from arbor.commands import equal_tokens
from eval.report.columns import distinct_tokens
from mcts.trees.node import Node
from mcts.trees.record import to_record
from tests.conftest import run_here, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
DEV = ROOT / "models/tiny/data/dev.jsonl"


def tree(answer: str | None, value: float) -> dict:
    root = Node()
    root.children = [Node("0.0", root, 1, final_answer=answer or "", terminal=True, value=value)]
    return to_record(root, searched=False)


def line(index: int, answers: list[tuple[str | None, float]], tokens: int) -> dict:
    first, *others = [tree(*one) for one in answers]
    meta = {"index": index, "tokens_generated": tokens}
    return {"question": "q", "answer": "1", "react": first, "runs": others, "meta": meta}


def run(folder: Path, sampled: Path, *searches: Path) -> subprocess.CompletedProcess[str]:
    output = folder / "out"
    return run_here("scripts/compute_curve.py", "--sampled", sampled, "--output", output, "--searches", *searches)


def test_accuracy_and_cost_by_the_number_of_samples(tmp_path: Path) -> None:
    runs = [
        line(0, [("1", 0.9), ("2", 0.1), ("2", 0.2), ("2", 0.3)], 40),
        line(1, [(None, 0.0), ("1.0", -0.5), ("3", -0.6), ("1", -0.9)], 80),
    ]
    search = [
        {**line(i, [("1", 0.0)], 20), "prediction": {"final_answer": "1", "correct": right}}
        for i, right in ((0, True), (1, False))
    ]
    done = run(tmp_path, write_jsonl(tmp_path / "runs.jsonl", runs), write_jsonl(tmp_path / "search.jsonl", search))
    assert done.returncode == 0, done.stderr
    points = {one["method"]: one for one in json.loads((tmp_path / "out" / "equal_tokens.json").read_text())}
    found = {name: (one["accuracy"], one["tokens"]) for name, one in points.items()}
    assert found == {
        "Maj @ 1": (37.5, 15),  # 1 of 4 and 2 of 4
        "Maj @ 2": (50, 30),  # the first of a tie: "1 2" is right and "2 2" wrong, "1.0" is right and "3 1" wrong
        "Maj @ 3": (50, 45),  # 1 2 2: wrong; 1.0 3: the first of a tie
        "best @ 1": (37.5, 15),
        "best @ 2": (50, 30),
        "best @ 3": (100, 45),
        "weighted @ 1": (37.5, 15),
        "weighted @ 2": (50, 30),  # 1.9 against 1.1, then "2" twice; 0.5 alone, then 0.4 against 0.1
        "weighted @ 3": (50, 45),  # 1.9 against 2.3; 0.5 against 0.4
        "search": (50, 20),
    }
    tests = {one["against"]: (one["gained"], one["lost"], one["n"]) for one in points["search"]["tests"]}
    assert tests == {f"{way} @ 2": (0, 1, 2) for way in ("Maj", "best", "weighted")} and points["search"]["n"] == 2
    assert (tmp_path / "out" / "equal_tokens.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.pop("answer"), ['no "answer"']),
        (lambda one: one.pop("meta"), ["meta.index"]),
        (lambda one: one.update(runs=[]), ["one run a question", "n_runs"]),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path: Path, change, words: list[str]) -> None:
    record = line(0, [("1", 0.9), ("2", 0.1)], 40)
    change(record)
    path = write_jsonl(tmp_path / "runs.jsonl", [record])
    done = run(tmp_path, path, path)
    assert done.returncode == 2 and all(word in done.stderr for word in [*words, "runs.jsonl"]), done.stderr


def test_shared_beginnings_are_counted_once() -> None:
    def trees(*runs: tuple[int, ...]) -> list[dict]:
        return [{"0": {"token_ids": run[:1]}, "0.0": {"token_ids": run[1:]}} for run in runs]

    assert distinct_tokens(trees((1, 2, 3), (1, 2, 4, 5), (1, 2, 3))) == 5
    assert distinct_tokens(trees((1, 2), (3,))) == 3


def test_questions_are_searched_once_and_compared_by_family(tmp_path: Path) -> None:
    command = ["-m", "arbor", "equal-tokens", "--questions", str(DEV), "--limit", "4", "--samples", "3"]
    command += ["--configs", "configs/tiny/maj5.yaml", "configs/tiny/sbs_1_5.yaml", "--output", str(tmp_path)]
    first = run_here(*command)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "equal_tokens.json").read_text())
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.jsonl")}
    assert set(kept) == {"sampled.jsonl", "sbs_1_5.jsonl"}
    whole = {one["method"]: one for one in rows if one["family"] == "all"}
    assert {f"{way} @ {k}" for way in ("Maj", "best", "weighted") for k in (1, 2, 3)} | {"sbs_1_5"} == set(whole)
    assert all(one["n"] == 4 and one["computed_tokens"] > 0 for one in whole.values())
    assert whole["Maj @ 3"]["computed_tokens"] < 3 * whole["Maj @ 1"]["computed_tokens"]  # the prompt is shared
    for method, one in whole.items():
        parts = [row for row in rows if row["method"] == method and row["family"] != "all"]
        assert sum(row["n"] * row["accuracy"] for row in parts) == pytest.approx(4 * one["accuracy"])
    again = run_here(*command)
    assert again.returncode == 0 and again.stdout == first.stdout
    assert kept == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.jsonl")}


def test_one_source_and_one_sampling_configuration(tmp_path: Path) -> None:
    for words, message in (
        ([], "either --questions"),
        (["--questions", str(DEV), "--configs", "configs/tiny/greedy.yaml"], "exactly one with several"),
    ):
        command = ["-m", "arbor", "equal-tokens", *words, "--output", str(tmp_path)]
        done = run_here(*command)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_solutions_are_judged_by_the_rule_of_their_sampling(tmp_path: Path) -> None:
    root = Node()
    first = Node("0.0", root, 1, value=-0.9)
    first.children = [Node("0.0.0", first, 2, final_answer="1", terminal=True, value=0.5)]
    root.children = [first]
    record = line(0, [("2", 0.1), ("1", 0.0)], 10) | {"runs": [to_record(root, searched=False)]}
    record["meta"]["config"] = {"path_value": "mean"}
    sampled = write_jsonl(
        tmp_path / "s.jsonl", [record, {**record, "meta": {**record["meta"], "index": 1, "config": {}}}]
    )
    for given, worth in ((None, [-0.2, 0.5]), ("min", [-0.9, -0.9])):
        every = asyncio.run(equal_tokens.read_sampled(sampled, given))
        assert [every[index].runs[1].value for index in (0, 1)] == pytest.approx(worth)
    node = json.loads(sampled.read_text().splitlines()[0])["react"]["0.0"]
    node["value"] = -100
    lacking = write_jsonl(tmp_path / "l.jsonl", [{**record, "react": {**record["react"], "0.0": node}}])
    done = run(tmp_path, lacking, write_jsonl(tmp_path / "t.jsonl", [{**record, "prediction": None}]))
    assert done.returncode == 0 and "1 of 2 sampled answers have no value; they count as the least" in done.stderr
    assert "best @ 2" in done.stdout

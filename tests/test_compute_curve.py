"""Maj@k, best of k and searches at equal cost, against counting by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcts.trees.node import Node
from mcts.trees.record import to_record
from tests.conftest import write_jsonl

ROOT = Path(__file__).resolve().parents[1]


def tree(answer: str | None, value: float) -> dict:
    root = Node()
    root.children = [Node("0.0", root, 1, final_answer=answer or "", terminal=True, value=value)]
    return to_record(root, searched=False)


def line(index: int, answers: list[tuple[str | None, float]], tokens: int) -> dict:
    first, *others = [tree(*one) for one in answers]
    meta = {"index": index, "tokens_generated": tokens}
    return {"question": "q", "answer": "1", "react": first, "runs": others, "meta": meta}


def run(folder: Path, sampled: Path, *searches: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/compute_curve.py", "--sampled", str(sampled), "--output", str(folder / "out")]
    return subprocess.run(
        [*command, "--searches", *map(str, searches)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


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
    points = {one["method"]: one for one in json.loads((tmp_path / "out" / "curve.json").read_text())}
    found = {name: (one["accuracy"], one["tokens"]) for name, one in points.items()}
    assert found == {
        "Maj @ 1": (37.5, 15),  # 1 of 4 and 2 of 4
        "Maj @ 2": (50, 30),  # the first of a tie: "1 2" is right and "2 2" wrong, "1.0" is right and "3 1" wrong
        "Maj @ 3": (50, 45),  # 1 2 2: wrong; 1.0 3: the first of a tie
        "best @ 1": (37.5, 15),
        "best @ 2": (50, 30),
        "best @ 3": (100, 45),
        "search": (50, 20),
    }
    assert "k = 2: gained 0, lost 1 of 2" in done.stdout and points["search"]["n"] == 2
    assert (tmp_path / "out" / "curve.png").stat().st_size > 1000


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

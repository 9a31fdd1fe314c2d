"""Paired comparison of result files: what is counted, tested and printed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from eval.report.compare import FORMATS, compare, pair_up, paired_test
from eval.report.rows import read_rows
from mcts.errors import UserError
from tests.arbor.pages import plain, write

ROOT = Path(__file__).resolve().parents[2]


def result(folder: Path, *files: list[dict[str, Any]]) -> dict[str, Any]:
    paths = [write(folder / f"{name}.jsonl", *records) for name, records in zip("abc", files, strict=False)]
    return compare({path.name: read_rows(path, "default") for path in paths}, "default")


@pytest.mark.parametrize(("only_first", "only_second", "both", "neither"), [(0, 0, 3, 2), (5, 1, 0, 4), (9, 9, 1, 1)])
def test_the_test_is_the_exact_binomial_one(only_first: int, only_second: int, both: int, neither: int) -> None:
    first = [True] * only_first + [False] * only_second + [True] * both + [False] * neither
    second = [False] * only_first + [True] * only_second + [True] * both + [False] * neither
    found = paired_test(first, second)
    assert (found.only_first, found.only_second, found.both, found.neither) == (only_first, only_second, both, neither)
    n = only_first + only_second
    assert found.p == pytest.approx(binomtest(only_first, n).pvalue if n else 1.0)
    assert found.difference == pytest.approx(100 * (sum(second) - sum(first)) / len(first))
    assert found.low <= found.difference <= found.high


def test_no_questions_are_no_evidence() -> None:
    found = paired_test([], [])
    assert (found.n, found.p, found.difference) == (0, 1.0, 0.0) and (found.low, found.high) == (-100.0, 100.0)


def test_questions_are_joined_whatever_their_order_and_how_often_they_occur() -> None:
    assert pair_up(["a", "b", "a", "c"], ["a", "c", "x", "a", "a"]) == [(0, 0), (2, 3), (3, 1)]
    assert pair_up([], ["a"]) == []


def test_each_later_file_is_compared_with_the_first(tmp_path: Path) -> None:
    levels = [{"level": "1"}, {"level": "2"}, {"level": "2"}]
    first = [
        plain(f"Q{i}", "1", answer, **fields) for i, (answer, fields) in enumerate(zip("120", levels, strict=True))
    ]
    second = [
        plain(f"Q{i}", "1", answer, tokens=30, **fields)
        for i, (answer, fields) in enumerate(zip("111", levels, strict=True))
    ]
    third = [plain("Q2", "1", None, **levels[2]), plain("Q0", "1", "3", **levels[0])]
    found = result(tmp_path, first, second, third)
    assert [one["percent"] for one in found["files"]] == pytest.approx([100 / 3, 100, 0])
    assert [one["cost_per_question"]["tokens_generated"] for one in found["files"]] == [10, 30, 10]
    gained, lost = found["pairs"]
    assert (gained["n"], gained["only_first"], gained["only_second"], gained["both"]) == (3, 0, 2, 1)
    assert gained["by"]["level"]["2"]["only_second"] == 2 and gained["by"]["level"]["1"]["both"] == 1
    assert [(one["question"], one["first"], one["second"]) for one in gained["changed"]] == [
        ("Q1", "2", "1"),
        ("Q2", "0", "1"),
    ]
    assert (lost["n"], lost["only_first"], lost["neither"]) == (2, 1, 1)
    assert [one["gained"] for one in lost["changed"]] == [False]


def test_answers_that_are_written_otherwise_are_no_change(tmp_path: Path) -> None:
    found = result(tmp_path, [plain("Q", "1/2", "0.5")], [plain("Q", "1/2", "\\frac{2}{4}")])
    assert found["pairs"][0]["both"] == 1 and not found["pairs"][0]["changed"]


def test_every_form_says_the_same_figures(tmp_path: Path) -> None:
    tricky = 'Is "a|b", \n1?'
    found = result(tmp_path, [plain(tricky, "1", "2", type="x,y")], [plain(tricky, "1", "1", type="x,y")])
    forms = {name: form(found) for name, form in FORMATS.items()}
    assert json.loads(forms["json"]) == found
    rows = list(csv.DictReader(io.StringIO(forms["csv"])))
    assert [(row["group"], row["value"], row["only_second"]) for row in rows] == [("", "", "1"), ("type", "x,y", "1")]
    assert "gained" in forms["text"] and "a.jsonl" in forms["text"]
    changes = next(line for line in forms["markdown"].splitlines() if "gained" in line)
    assert changes.replace("\\|", "").count("|") == 6  # the bar in the question is no border


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two files"):
        result(tmp_path, [plain("Q", "1", "1")])
    with pytest.raises(UserError, match="no question in common"):
        result(tmp_path, [plain("Q", "1", "1")], [plain("R", "1", "1")])
    done = subprocess.run(
        [sys.executable, "-m", "arbor", "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "none.jsonl")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "none.jsonl: no such file" in done.stderr

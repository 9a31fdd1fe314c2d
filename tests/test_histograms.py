"""Histograms of Q values from saved trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from arbor.commands.plot import command
from eval.report.figures import held_out_values, training_values
from mcts.errors import UserError
from mcts.trees.node import Node
from mcts.trees.record import to_record
from tests.conftest import run_here, write_jsonl

ROOT = Path(__file__).resolve().parents[1]


def row(correct: bool) -> dict:
    root = Node()
    inner = Node("0.0", root, 1, visit_count=4, value_sum=2.0)
    leaf = Node("0.0.0", inner, 2, visit_count=1, value_sum=-1.0, final_answer="1", terminal=True)
    root.children, inner.children = [inner], [leaf]
    prediction = {"final_answer": "1", "tag": "0.0.0", "run": 0, "correct": correct}
    return {"react": to_record(root, searched=True), "prediction": prediction}


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--training or --held-out"):
        command.main(["--output", str(tmp_path)], standalone_mode=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"requirements-dev\.txt"):
        command.main(["--output", str(tmp_path), "--training", "t.jsonl"], standalone_mode=False)


def test_inner_steps_and_predictions_are_told_apart(tmp_path: Path) -> None:
    trees = write_jsonl(tmp_path / "t.jsonl", [row(True), row(False)])
    assert training_values(trees) == {"inner steps": [0.5, 0.5]}
    assert held_out_values(trees) == {"right": [0.5, -1.0], "wrong": [0.5, -1.0]}
    several = {**row(True), "runs": [row(True)["react"]]}
    several["prediction"]["run"], several["runs"][0]["0.0.0"]["q_value"] = 1, 0.25
    assert held_out_values(write_jsonl(tmp_path / "runs.jsonl", [several]))["right"] == [0.5, 0.25]
    several["prediction"]["tag"] = "0.7"
    with pytest.raises(UserError, match=r"runs\.jsonl:1: .* 0\.7 is not in"):
        held_out_values(write_jsonl(tmp_path / "runs.jsonl", [several]))
    line = ["scripts/histograms.py", "--training", str(trees), "--held-out", str(trees)]
    done = run_here(*line, "--output", tmp_path / "png")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "png").glob("*.png")} == {"q_training.png", "q_held_out.png"}
    (tmp_path / "empty.jsonl").write_text('{"react": {"0": {"text": ""}}}\n')
    line = ["scripts/histograms.py", "--training", str(tmp_path / "empty.jsonl"), "--output", "x"]
    refused = run_here(*line, "--output", tmp_path)
    assert refused.returncode == 2 and "no Q value" in refused.stderr

"""Imitation and output-space shaping as commands, on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from arbor.commands import shape
from arbor.commands.rounds import tools
from mcts.config import load_keys
from mcts.errors import UserError
from models.training.settings import TrainSettings
from models.training.shaped_rounds import ShapingRounds, ShapingRunner
from tests.conftest import run_here, stages_in_this_process

ROOT = Path(__file__).resolve().parents[1]


def test_shaping_is_one_command_that_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages_in_this_process(monkeypatch)
    output = tmp_path / "shape"
    keys = yaml.safe_load((ROOT / "configs/shape/tiny.yaml").read_text(encoding="utf-8"))
    keys["prepare"] = [line.replace("--questions 200", "--questions 4") for line in keys["prepare"]]
    keys |= {"output": str(output), "search_set": {"n_runs": 2}, "rounds": keys["rounds"][:2]}
    greedy = {"config": "configs/tiny/greedy.yaml", "n": 4}
    keys["evaluate"] = {"greedy": greedy, "dropped": greedy}
    for one in keys["rounds"]:
        one["evaluate"] = {"dropped": None}
    keys["train_set"]["updates"] = keys["rounds"][1]["train_set"]["updates"] = 2
    (tmp_path / "shape.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    arguments = ["--config", str(tmp_path / "shape.yaml")]
    shape.command.main(arguments, standalone_mode=False)
    rows = [json.loads(line) for line in (output / "shaped/solutions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4 and all(row["answer"] and "solutions" in row for row in rows)
    assert set() < {one["source"] for row in rows for one in row["solutions"]} <= {"sampled", "corrected"}
    report = (output / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} | greedy | 4 |" in report for name in ("start", "imitation", "shaped"))
    assert "dropped" not in report
    stages = {path: path.read_bytes() for path in output.rglob("*.done")}
    done = run_here("scripts/shape.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in output.rglob("*.done")} == stages


@pytest.mark.parametrize(
    ("size", "rate", "rows"), [("7b", 2e-5, 16), ("13b", 2e-5, 16), ("34b", 1e-5, 8), ("70b", 1e-5, 4)]
)
def test_the_published_settings_of_imitation_are_shipped(size: str, rate: float, rows: int) -> None:
    keys = load_keys(TrainSettings, ROOT / f"configs/train/tora_{size}.yaml")
    assert keys.batch_size / keys.accumulation / 8 == rows  # rows a GPU, of eight
    assert (keys.learning_rate, keys.batch_size, keys.epochs, keys.max_tokens) == (rate, 128, 3, 2048)
    assert (keys.objective, keys.schedule, keys.warmup, keys.weight_decay, keys.lora) == (
        "sft",
        "linear",
        0.03,
        0,
        None,
    )


def test_a_shaping_that_cannot_end_does_not_begin(tmp_path: Path) -> None:
    keys = load_keys(ShapingRounds, ROOT / "configs/shape/tiny.yaml", [f"output={tmp_path}"])
    for change, words in (
        ({"rounds": []}, "at least one"),
        ({"shaping": keys.shaping.model_copy(update={"correct": "none.yaml"})}, "none.yaml: no such"),
    ):
        with pytest.raises(UserError, match=words):
            ShapingRunner(keys.model_copy(update=change), tools())


def test_bad_input_of_shaping_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    node = {"text": "", "extra_info": "", "action": "", "action_input": "", "final_answer": "", "value": -100}
    row: dict = {"question": "a", "react": {"0": node}, "meta": None}
    (tmp_path / "trees.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    samples = ["--trees", str(tmp_path / "trees.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    done = run_here("scripts/correct.py", "--custom_cfg", "configs/tiny/greedy.yaml", *samples)
    assert done.returncode == 2 and "trees.jsonl:1: written with markup react," in done.stderr
    row["meta"] = {"config": {"prompt_wrap": "tora"}}
    (tmp_path / "trees.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    line = ["--trees", str(tmp_path / "trees.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    done = run_here("scripts/correct.py", "--custom_cfg", "configs/tiny/greedy.yaml", *line)
    assert done.returncode == 2 and "markup tora" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    row["meta"]["config"]["prompt_wrap"] = "react_sft"
    (tmp_path / "trees.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = run_here("scripts/correct.py", "--custom_cfg", "configs/tiny/greedy.yaml", *line)
    assert done.returncode == 2 and '"answer" is missing' in done.stderr
    row["answer"], row["react"]["0.1.0"] = "1", node
    (tmp_path / "trees.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = run_here("scripts/correct.py", "--custom_cfg", "configs/tiny/greedy.yaml", *line)
    assert done.returncode == 2 and "trees.jsonl:1: node 0.1.0: its parent" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()

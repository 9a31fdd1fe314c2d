"""The commands as a person runs them, on the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import run_here

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = "models/tiny/data/heldout.jsonl"


VARIABLE = ("tokens_computed", "tokens_reused")
"""What depends on the run that a question is in: a shared prefix is charged to whoever computes it first."""


def rows(path: Path) -> list[dict]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in found:
        row["meta"] = {key: value for key, value in row["meta"].items() if key not in VARIABLE and "seconds" not in key}
    return found


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees of MCTS over eight held-out problems."""
    path = tmp_path_factory.mktemp("searched") / "trees.jsonl"
    done = run_here(
        "solver_demo.py", "--custom_cfg", "configs/tiny/mcts.yaml", "--qaf", HELD_OUT, "--limit", "8",
        "--output", str(path), "--set", "iterations=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(path)
    return path


def test_trees_are_saved_in_the_published_format_with_our_fields_beside(searched: Path) -> None:
    for index, row in enumerate(rows(searched)):
        assert {"question", "answer", "family", "react", "prediction", "schema", "meta"} <= row.keys()
        assert row["meta"]["index"] == index and row["meta"]["simulations"] <= 8
        for node in row["react"].values():
            published = {"text", "extra_info", "action", "action_input", "final_answer", "value", "q_value", "prior"}
            assert published | {"visit_count", "token_ids", "terminal"} <= node.keys()


def test_no_token_of_a_tree_is_computed_twice(searched: Path) -> None:
    from eval.report.columns import distinct_tokens

    found = [json.loads(line) for line in searched.read_text(encoding="utf-8").splitlines()]
    computed = sum(row["meta"]["tokens_computed"] for row in found)
    assert computed <= 1.05 * sum(distinct_tokens([row["react"]]) for row in found)


def test_the_same_seed_gives_the_same_trees_whatever_is_in_flight(searched: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.jsonl"
    done = run_here(
        "solver_demo.py", "--custom_cfg", "configs/tiny/mcts.yaml", "--qaf", HELD_OUT, "--limit", "8",
        "--output", str(path), "--set", "iterations=8", "--set", "batch_size=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again, first = rows(path), rows(searched)
    for row in (*again, *first):
        del row["meta"]["config"]
    assert again == first


def test_a_run_killed_after_its_last_question_is_put_in_order(searched: Path, tmp_path: Path) -> None:
    path = tmp_path / "unsorted.jsonl"
    lines = searched.read_text(encoding="utf-8").splitlines(True)
    path.write_text("".join(reversed(lines)), encoding="utf-8")
    done = run_here(
        "solver_demo.py", "--custom_cfg", "configs/tiny/mcts.yaml", "--qaf", HELD_OUT, "--limit", "8",
        "--output", str(path), "--set", "iterations=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert path.read_text(encoding="utf-8") == "".join(lines)


def test_offline_inference_and_evaluation_read_the_trees(searched: Path) -> None:
    right = sum(row["prediction"] is not None and row["prediction"]["correct"] for row in rows(searched))
    evaluated = run_here("eval_output_jsonl.py", "--res_file", str(searched))
    assert evaluated.stdout.startswith(f"{right} of 8 right"), evaluated.stderr
    decided = run_here(
        "offline_inference.py", "--custom_cfg", "configs/offline_inference.yaml", "--tree_jsonl", str(searched),
        "--set", "step_beam_width=3",
    )  # fmt: skip
    assert decided.stdout.startswith(f"{right} of 8 right"), decided.stderr


def test_golden_trees_of_old_are_evaluated(reference: Path, tmp_path: Path) -> None:
    import gzip

    with gzip.open(reference / "golden/sbs_3_5.trees.jsonl.gz", "rt", encoding="utf-8") as lines:
        (tmp_path / "old.jsonl").write_text(lines.read(), encoding="utf-8")
    done = run_here("eval_output_jsonl.py", "--res_file", str(tmp_path / "old.jsonl"))
    assert done.returncode == 0 and "of 16 right" in done.stdout


def test_a_killed_run_goes_on_under_its_default_name(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text("".join((ROOT / HELD_OUT).read_text(encoding="utf-8").splitlines(True)[:40]), encoding="utf-8")
    command = ["solver_demo.py", "--custom_cfg", "configs/tiny/sbs_1_5.yaml", "--qaf", str(questions)]
    command += ["--set", "batch_size=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sum(len(p.read_bytes().splitlines()) for p in tmp_path.glob("q.jsonl.*")) < 3:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (output,) = tmp_path.glob("q.jsonl.sbs.weights.*.jsonl")
    before = len(output.read_text(encoding="utf-8").splitlines())
    assert 3 <= before < 40
    done = run_here(*command)
    assert done.returncode == 0 and done.stdout.strip() == str(output), done.stderr
    assert [row["meta"]["index"] for row in rows(output)] == list(range(40))
    whole = run_here(*command, "--output", str(tmp_path / "whole.jsonl"))
    assert whole.returncode == 0 and rows(tmp_path / "whole.jsonl") == rows(output)


def test_one_question_is_printed_step_by_step() -> None:
    question = json.loads((ROOT / HELD_OUT).read_text(encoding="utf-8").splitlines()[0])["question"]
    done = run_here("solver_demo.py", "--custom_cfg", "configs/tiny/greedy.yaml", "--question", question)
    assert done.returncode == 0 and "--- 0.0 " in done.stdout and "<output>" in done.stdout, done.stderr


def test_react_batch_demo_writes_linear_trees(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    done = run_here(
        "react_batch_demo.py", "--custom_cfg", "configs/tiny/greedy.yaml", "--qaf", HELD_OUT, "--limit", "3",
        "--output", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(tag == "0" + ".0" * tag.count(".") for row in rows(path) for tag in row["react"])


CFG = ("--custom_cfg", "configs/tiny/greedy.yaml")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("solver_demo.py", "--custom_cfg", "none.yaml", "--qaf", HELD_OUT), ["none.yaml", "no such"]),
        (("solver_demo.py", *CFG, "--qaf", "none.jsonl"), ["none.jsonl", "no such"]),
        (("solver_demo.py", *CFG, "--qaf", "empty.jsonl"), ["empty.jsonl", "no question"]),
        (("solver_demo.py", *CFG, "--qaf", HELD_OUT, "--set", "seeed=1"), ["seeed", "did you mean 'seed'"]),
        (("solver_demo.py", *CFG, "--qaf", HELD_OUT, "--set", "model_dir=no/model"), ["no/model", "config.json"]),
        (("solver_demo.py", "--custom_cfg", "configs/mcts_sft.yaml", "--question", "1+1?"), ["models/alphamath-7b"]),
        (("solver_demo.py", *CFG, "--qaf", HELD_OUT, "--limit", "0"), ["--limit 0"]),
        (("solver_demo.py", *CFG, "--qaf", HELD_OUT, "--set", "few_shot_path=x.json", "--set", "prompt_wrap=react",
          "--set", "result_unwrap=react"), ["x.json"]),
        (("offline_inference.py", *CFG, "--tree_jsonl", "broken.jsonl"), ["broken.jsonl:1", "react"]),
        (("eval_output_jsonl.py", "--res_file", "no_answer.jsonl"), ["no_answer.jsonl:1", "answer"]),
        (("scripts/save_value_head.py", "no/model"), ["no/model", "no such folder"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_two(tmp_path: Path, command: tuple[str, ...], words: list[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"question": "a"}\n')
    (tmp_path / "no_answer.jsonl").write_text('{"question": "a", "react": {"0": {"text": ""}}}\n')
    for name in ("configs", "models", "scripts", "solver_demo.py", "offline_inference.py", "eval_output_jsonl.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = run_here(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_a_value_head_is_added_to_a_model_folder_once(model_folder: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    from models.engines.value_head import load_value_head

    folder = tmp_path / "m"
    shutil.copytree(model_folder, folder)
    (folder / "value_head.safetensors").unlink()
    weight, bias = torch.randn(1, 64), torch.randn(1)
    torch.save({"v_head.summary.weight": weight, "v_head.summary.bias": bias}, folder / "value_head.pth")
    assert run_here("scripts/save_value_head.py", str(folder)).returncode == 0
    assert torch.equal(load_value_head(folder).summary.weight, weight)
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["value_model"] is True
    again = run_here("scripts/save_value_head.py", str(folder))
    assert again.returncode == 2 and "--force" in again.stderr


def test_a_value_head_is_not_written_beside_a_broken_configuration(tmp_path: Path) -> None:
    import torch

    torch.save({"v_head.summary.weight": torch.zeros(1, 8), "v_head.summary.bias": torch.zeros(1)},
               tmp_path / "value_head.pth")  # fmt: skip
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        done = run_here("scripts/save_value_head.py", str(tmp_path))
        assert done.returncode == 2 and "config.json: not a model's configuration" in done.stderr, done.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"config.json", "value_head.pth"}


def test_a_hostile_value_head_is_not_executed(model_folder: Path, tmp_path: Path) -> None:
    import pickle

    from mcts.errors import UserError
    from models.engines.value_head import load_value_head

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "owned",))

    (tmp_path / "value_head.pth").write_bytes(pickle.dumps({"v_head.summary.weight": Evil()}))
    with pytest.raises(UserError, match="not a value head"):
        load_value_head(tmp_path)
    assert not (tmp_path / "owned").exists()

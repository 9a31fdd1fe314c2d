"""Rounds as a person runs them: killed anywhere and started again, they end in the same place."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from arbor.commands.rounds import command as rounds
from arbor.commands.rounds import tools
from mcts.config import load_keys
from mcts.errors import UserError
from models.training.rounds import Rounds, Runner
from tests.conftest import stages_in_this_process

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    "runs": {"config": "configs/tiny/maj5.yaml", "set": {"n_runs": 3}, "n": 3},
    "best": {"rerank": "runs"},
}


AT_WORK = (
    "1/trees.jsonl", "1/examples.jsonl*", "1/train/checkpoint/0*", "1/evaluate/runs.jsonl", "2/train/metrics.jsonl",
)  # fmt: skip
"""Files that show that a stage is in the middle of its work: where a run is killed."""


def write_config(path: Path, output: Path, **keys: object) -> Path:
    base = {
        "output": str(output), "seed": 3, "start": "models/tiny/weights",
        "prepare": [f"{sys.executable} -m models.tiny.prepare --seed 3 --output {{output}}/data --demonstrations 40 "
                    "--questions 9"],
        "questions": "{output}/data/questions.jsonl", "questions_per_round": 4,
        "search": "configs/tiny/rollouts.yaml", "search_set": {"batch_size": 2}, "method": "ovm",
        "train": "configs/train/tiny.yaml",
        "train_set": {"updates": 6, "save_every": 2, "batch_size": 4, "tensorboard": False, "optimizer": "adamw",
                      "replay": ["{output}/data/demonstrations.jsonl"]},
        "held_out": "models/tiny/data/dev.jsonl", "evaluate": METHODS,
        "rounds": [{"name": "1"}, {"name": "2", "base": "start", "pooled": True, "evaluate": dict.fromkeys(METHODS)}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(base | keys, sort_keys=False))
    return path


def command(config: Path) -> list[str]:
    return [sys.executable, str(ROOT / "scripts/run_rounds.py"), "--config", str(config)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(config: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(config), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("rounds")
    config = write_config(folder / "c.yaml", folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        stages_in_this_process(patch)
        rounds.main(["--config", str(config)], standalone_mode=False)
    return folder / "run"


def results(output: Path) -> list[dict]:
    rows = json.loads((output / "report.json").read_text())
    for row in rows:
        del row["seconds"]
    return rows


def same_weights(first: Path, second: Path) -> bool:
    one, other = (load_file(folder / "train" / "model" / "model.safetensors") for folder in (first, second))
    return all(torch.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)


def test_a_run_killed_again_and_again_ends_where_an_uninterrupted_one_does(whole: Path, tmp_path: Path) -> None:
    prepare = [f"cp -r {whole}/data {{output}}/data"]
    config, rng = write_config(tmp_path / "c.yaml", tmp_path / "run", prepare=prepare), random.Random(5)
    for at_work in AT_WORK:
        running = subprocess.Popen(command(config), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
        while running.poll() is None and not any(one.stat().st_size for one in (tmp_path / "run").glob(at_work)):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        assert running.poll() is None, at_work
        running.send_signal(signal.SIGKILL)  # the run only: its command must end with it
        running.wait()
    done = run(config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path / "run") == results(whole)
    for name in ("1", "2"):
        assert same_weights(tmp_path / "run" / name, whole / name)
        ours, theirs = ((folder / name / "examples.jsonl").read_text() for folder in (tmp_path / "run", whole))
        assert ours == theirs.replace(str(whole), str(tmp_path / "run"))


def test_a_finished_run_is_not_done_again(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.done")}
    assert {"search.done", "grade.done", "examples.done", "train.done", "runs.done"} <= {p.name for p in before}
    done = run(whole.parent / "c.yaml")
    assert done.returncode == 0 and "search" not in done.stdout, done.stderr
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.done")} == before


def test_rounds_take_their_own_questions_and_report(whole: Path) -> None:
    first, second = ((whole / name / "questions.jsonl").read_text().splitlines() for name in ("1", "2"))
    assert len(first) == len(second) == 4 and not set(first) & set(second)
    settings = json.loads((whole / "2" / "train" / "settings.json").read_text())["settings"]
    assert [Path(path).parent.name for path in settings["examples"]] == ["1", "2"]
    assert settings["model_dir"] == "models/tiny/weights"
    report = (whole / "report.md").read_text()
    assert "| 1 | runs | 3 |" in report and "distinct correct" in report
    rows = {row["method"]: row for row in results(whole)}
    assert rows["best"]["costs"] == rows["runs"]["costs"] and len(rows["best"]["right"]) == 3


def test_a_run_is_started_from_any_folder_and_repeats_what_has_changed_and_nothing_else(
    whole: Path, tmp_path: Path
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    away.mkdir()
    shutil.copytree(ROOT / "models/tiny/weights", home / "base")
    for name in ("train/tiny.yaml", "tiny/greedy.yaml"):  # beside the file of the rounds
        shutil.copy(ROOT / "configs" / name, home / Path(name).name)
    rounds = [{"name": "1", "search": None, "train_set": {"examples": ["{output}/data/demonstrations.jsonl"]}}]
    keys = {"start": "base", "train": "tiny.yaml", "evaluate": {"greedy": {"config": "greedy.yaml", "n": 2}}}
    keys["prepare"] = [f"cp -r {whole}/data {{output}}/data"]
    held_out = str(ROOT / "models/tiny/data/dev.jsonl")
    train_set = {"updates": 2, "objective": "sft", "batch_size": 4, "tensorboard": False, "optimizer": "adamw"}
    config = write_config(home / "c.yaml", home / "run", held_out=held_out, train_set=train_set, rounds=rounds, **keys)

    def stages() -> list[str]:
        done = run(config, away)
        assert done.returncode == 0, done.stderr[-3000:]
        return [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("[")]

    assert stages() == ["prepare0", "train", "greedy"]
    assert not list(away.iterdir()) and stages() == []
    greedy = home / "greedy.yaml"
    greedy.write_text("# a comment\n" + greedy.read_text())
    assert stages() == []
    greedy.write_text(greedy.read_text() + "max_tokens: 77\n")
    assert stages() == ["greedy"]
    (home / "run").rename(home / "moved")
    config.write_text(config.read_text().replace(str(home / "run"), str(home / "moved")))
    assert stages() == []
    head = home / "base" / "value_head.safetensors"
    tensors = load_file(head)
    save_file({name: one + 0.01 for name, one in tensors.items()}, head)
    assert stages() == ["train", "greedy"]  # its result is another model


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rounds": [{"name": "1", "base": "0"}]}, ["rounds[0]", "'0'", "no earlier round"]),
        ({"rounds": [{"nome": "1"}]}, ["rounds[0]", "nome", "did you mean 'name'"]),
        ({"rounds": [{"name": "1"}, {"name": "1"}]}, ["same name"]),
        ({"method": "svp"}, ["method", "unknown objective 'svp'", "did you mean 'svpo'"]),
        ({"rounds": [{"name": "a/b"}]}, ["rounds[0]", "name"]),
        ({"rounds": [{"name": "1", "trees": "previous"}]}, ["rounds[0]", "trees: 'previous'", "no earlier round"]),
        ({"rounds": [{"name": "1"}, {"name": "2", "trees": "start"}]}, ["rounds[1]", "trees: 'start'", "['1']"]),
        ({"search_set": {"temprature": 1}}, ["rounds[0]", "did you mean 'temperature'"]),
        ({"train_set": {"lerning_rate": 1}}, ["rounds[0]", "did you mean 'learning_rate'"]),
        ({"examples": {"pears": 1}}, ["rounds[0]", "examples", "did you mean 'pairs'"]),
        ({"search": "none.yaml"}, ["rounds[0]", "none.yaml"]),
        ({"evaluate": {"best": {"rerank": "runs"}}}, ["rounds[0]", "best", "no row 'runs' of trees"]),
        ({"evaluate": {"best": {"n": 3}}}, ["evaluate", "config: FILE or rerank: ROW"]),
    ],
)
def test_bad_rounds_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict, words: list[str]
) -> None:
    monkeypatch.chdir(ROOT)
    config = write_config(tmp_path / "c.yaml", tmp_path / "run", **keys)
    with pytest.raises(UserError) as refused:
        rounds.main(["--config", str(config)], standalone_mode=False)
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_shipped_rounds_are_well_formed() -> None:
    from mcts.config import load_keys
    from models.engines.config import load_config
    from models.training.settings import TrainSettings

    for path in sorted((ROOT / "configs" / "rounds").glob("*.yaml")):
        runner = Runner(load_keys(Rounds, path), tools(), path.parent)
        for one in runner.rounds:
            load_keys(TrainSettings, ROOT / one.train, ["examples=[of-the-round]"])
            for _, evaluation in one.rows():
                assert evaluation.rerank or load_config(ROOT / evaluation.config)


def test_a_missing_launcher_or_failing_command_ends_with_its_code(tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", tmp_path / "run", prepare=["false"])
    assert run(config).returncode == 1
    config = write_config(tmp_path / "d.yaml", tmp_path / "run", prepare=["no-such-program"])
    done = run(config)
    assert done.returncode == 2 and "no-such-program" in done.stderr


def test_a_round_takes_the_questions_after_those_of_the_rounds_before(tmp_path: Path) -> None:
    rounds = [{"name": "0"}, {"name": "1", "questions_per_round": 2}, {"name": "2"}]
    config = write_config(tmp_path / "r.yaml", tmp_path, questions=str(tmp_path / "q.jsonl"), rounds=rounds)
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "{n}", "answer": "1"}}\n' for n in range(9)))
    for _ in range(2):  # the second run finds the files of the first
        runner = Runner(load_keys(Rounds, str(config), []), tools())
        files = [runner._questions(one, tmp_path / one.name) for one in runner.rounds]
        taken = [[json.loads(line)["question"] for line in path.read_text().splitlines()] for path in files]
        assert taken == [list("0123"), list("45"), list("6780")]

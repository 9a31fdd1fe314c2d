"""Trainings of several processes end as those of one do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import psutil
import pytest
import yaml
from accelerate.state import AcceleratorState

from models.training.settings import TrainSettings
from models.training.trainer import Trainer
from tests.models.training_runs import make_folder, metrics, same_weights, settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("training"))


def launch(
    settings: TrainSettings, script: str, *arguments: str, how: str = "--multi_gpu", **environment: str
) -> subprocess.CompletedProcess:
    """`accelerate launch` of two processes. One start never ended, on a machine of continuous integration, and nobody
    knows why; such a start is stopped, says where it stood, and is made once more."""
    keys = Path(f"{settings.output}.json")
    keys.write_text(json.dumps(settings.model_dump()))
    options = f"{how} --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *options.split(), "--main_process_port", "0", script]
    config = ["--config"] if script.startswith("scripts") else []
    own = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"} | environment
    command += [*config, str(keys), *arguments]
    for left in (1, 0):
        running = psutil.Popen(command, cwd=ROOT, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            said = running.communicate(timeout=180)
            break
        except subprocess.TimeoutExpired:
            for process in [*running.children(recursive=True), running]:
                process.send_signal(signal.SIGABRT)  # each writes its stacks
            stood = running.communicate(timeout=60)[1]
            assert left, stood
            warnings.warn(f"two processes hung:\n{stood}", stacklevel=2)
    return subprocess.CompletedProcess(command, running.returncode, *said)


UNEVEN = {"objective": "svpo", "updates": 6, "batch_size": 7}  # 7 does not divide evenly


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)
    Trainer(settings(folder, folder / "alone", **UNEVEN)).run()
    return folder / "alone"


def same_losses(one: Path, other: Path) -> bool:
    rows = zip(metrics(one), metrics(other), strict=True)
    return all(row == pytest.approx(match, rel=1e-4, abs=1e-5) for row, match in rows)


def test_two_processes_and_accumulation_give_the_losses_of_one(folder: Path, alone: Path, tmp_path: Path) -> None:
    two = settings(folder, tmp_path / "two", accumulation=2, **UNEVEN)
    done = launch(two, "scripts/train.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert same_losses(alone, tmp_path / "two") and same_weights(alone, tmp_path / "two", 1e-4)
    done = launch(two.model_copy(update={"batch_size": 3, "output": str(tmp_path / "few")}), "scripts/train.py")
    assert "processes × accumulation = 4" in done.stderr  # there were two


@pytest.mark.parametrize("name", ["fsdp", "zero3"])
def test_sharded_over_two_processes_a_stopped_training_ends_with_the_same_weights(
    folder: Path, alone: Path, tmp_path: Path, name: str
) -> None:
    config = ROOT / "configs" / "train" / f"{name}.yaml"
    how, environment = "--multi_gpu", {"ACCELERATE_USE_FSDP": "true"}
    keys: dict[str, object] = UNEVEN | {"save_every": 2}
    if name == "fsdp":
        fsdp = yaml.safe_load(config.read_text())["fsdp_config"]
        environment |= {key.upper(): str(value) for key, value in fsdp.items()}
    else:
        pytest.importorskip("deepspeed")
        how, environment = f"--config_file {config}", {"DS_ACCELERATOR": "cpu"}
        keys |= {"device": "auto", "accumulation": 2}
    two = settings(folder, tmp_path / "two", **keys)
    stopped = launch(two, "tests/models/train_sharded.py", "STOP", how=how, **environment)
    assert (tmp_path / "two" / "checkpoint" / "00000002").is_dir(), stopped.stderr[-3000:]
    done = launch(two, "tests/models/train_sharded.py", how=how, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert same_losses(alone, tmp_path / "two") and same_weights(alone, tmp_path / "two", 1e-4)
    if name == "fsdp":
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["sharded"] == 3 and 0.45 < report["share"] < 0.55  # two layers, and what is around them

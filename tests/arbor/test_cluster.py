"""A run over a real Ray cluster of several nodes on this machine: engines, nodes and the driver die, the trees stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed: make test-ray")

from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = ROOT / "models/tiny/data/heldout.jsonl"
CONFIG = ROOT / "configs/tiny/sbs_3_5.yaml"
QUESTIONS = int(os.environ.get("ARBOR_RAY_QUESTIONS", "300"))
VARIABLE = ("tokens_computed", "tokens_reused")
PATIENCE_SECONDS = 600.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes: a head without CPUs, and two with one each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def start(output: Path, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "arbor", "solve", "--config", CONFIG, "--questions", HELD_OUT]
    command += ["--limit", QUESTIONS, "--output", output, "--set", "batch_size=2", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    for row in found:
        row["meta"] = {key: value for key, value in row["meta"].items() if key not in VARIABLE and "seconds" not in key}
    return found


def wait(what: str, is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if process.poll() is not None:
            raise AssertionError(f"the driver ended before {what}: {process.communicate()}")
        assert time.monotonic() < until, what
        time.sleep(0.05)


def written(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def engines(node: Any) -> list[int]:
    """The processes of the engines on a node."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet.process.pid and (entry / "cmdline").read_bytes().startswith(b"ray::Engine"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_engines_nodes_and_the_driver_die_and_the_trees_are_those_of_one_machine(
    cluster: Cluster, tmp_path: Path
) -> None:
    output, alone = tmp_path / "cluster.jsonl", tmp_path / "alone.jsonl"
    first, second = cluster.worker_nodes
    driver = start(output, "--ray", cluster.address)
    wait("engines on both nodes", lambda: bool(engines(first) and engines(second)) and written(output) > 0, driver)
    (victim,) = engines(first)
    os.kill(victim, signal.SIGKILL)
    wait("another engine", lambda: bool(engines(first)) and victim not in engines(first), driver)
    before = written(output)
    wait("more trees", lambda: written(output) > before, driver)
    cluster.remove_node(second, allow_graceful=False)
    third = cluster.add_node(num_cpus=1)
    wait("an engine on the new node", lambda: bool(engines(third)), driver)
    before = written(output)
    assert before < QUESTIONS
    driver.kill()
    driver.communicate()
    driver = start(output, "--ray", cluster.address)
    out, err = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 0, err
    assert out.strip() == str(output) and f"of {QUESTIONS} graded" in err
    _, err = (process := start(alone)).communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert rows(output) == rows(alone)
    assert [row["meta"]["index"] for row in rows(output)] == list(range(QUESTIONS))


def test_sigterm_keeps_what_is_finished_and_frees_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    output = tmp_path / "cluster.jsonl"
    driver = start(output, "--ray", cluster.address, "--ray-engines", 1)
    wait("a tree", lambda: written(output) > 0, driver)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 143 and "terminated; " in err and "the same command goes on" in err
    assert "Traceback" not in err
    until = time.monotonic() + 30
    while any(engines(node) for node in cluster.worker_nodes):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--set", "engine_args={no_such_key: 1}"), "no_such_key"),
        (("--set", "budget_block=4", "--set", "mode=mcts"), "budget_block"),
    ],
)
def test_what_an_engine_refuses_is_one_line(
    cluster: Cluster, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    driver = start(tmp_path / "cluster.jsonl", "--ray", cluster.address, *more)
    _, err = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 2 and words in err and "Traceback" not in err, err


def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    driver = start(tmp_path / "cluster.jsonl", "--ray", "127.0.0.1:1")
    _, err = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 2 and "--ray 127.0.0.1:1" in err and "Traceback" not in err, err

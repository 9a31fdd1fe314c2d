"""Shards of a run, on the embedded model: searched apart, put together, the trees of the undivided run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from arbor.shards import Shard
from mcts.errors import UserError
from mcts.question import Question
from tests.conftest import run_here

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = ROOT / "models/tiny/data/heldout.jsonl"
CONFIG = str(ROOT / "configs/tiny/sbs_3_5.yaml")
LIMIT = 11
VARIABLE = ("tokens_computed", "tokens_reused")


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "arbor", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def arbor(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_here("-m", "arbor", *arguments)


def search(output: Path, *more: object, limit: int = LIMIT) -> subprocess.Popen[str]:
    return start("solve", "--config", CONFIG, "--questions", HELD_OUT, "--limit", limit, "--output", output, *more)


def solve(output: Path, *more: object, limit: int = LIMIT) -> subprocess.CompletedProcess[str]:
    return arbor("solve", "--config", CONFIG, "--questions", HELD_OUT, "--limit", limit, "--output", output, *more)


def rows(path: Path) -> list[dict]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in found:
        row["meta"] = {key: value for key, value in row["meta"].items() if key not in VARIABLE and "seconds" not in key}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "trees.jsonl"
    done = solve(path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three shards, counted from 1 as some schedulers do."""
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / f"{number}.jsonl" for number in (1, 2, 3)]
    running = [search(path, "--shard", f"{number}/3") for number, path in enumerate(paths, start=1)]
    for done in map(ended, running):
        assert done.returncode == 0, done.stderr
    return paths


def test_merged_shards_are_the_undivided_run_line_for_line(whole: Path, shards: list[Path], tmp_path: Path) -> None:
    done = arbor("merge", *shards, "--output", tmp_path / "all.jsonl")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "all.jsonl") == rows(whole)
    assert done.stdout.strip() == str(tmp_path / "all.jsonl")
    right = sum(bool((row["prediction"] or {}).get("correct")) for row in rows(whole))
    assert f"right {right} of {LIMIT} graded" in done.stderr


def test_scores_of_shards_are_pooled(whole: Path, shards: list[Path]) -> None:
    pooled = arbor("evaluate", "--pool", "--json", *shards)
    assert pooled.returncode == 0, pooled.stderr
    (result,) = json.loads(pooled.stdout)["files"].values()
    (expected,) = json.loads(arbor("evaluate", "--json", whole).stdout)["files"].values()
    assert result["n"] == expected["n"] == LIMIT
    figures = [{key: one[key] for key in ("method", "percent", "low", "high")} for one in result["methods"]]
    assert figures == [{key: one[key] for key in ("method", "percent", "low", "high")} for one in expected["methods"]]
    twice = arbor("evaluate", "--pool", shards[0], shards[0].with_name("..") / shards[0].parent.name / shards[0].name)
    assert twice.returncode == 2 and "too" in twice.stderr


def test_what_does_not_belong_together_is_refused(shards: list[Path], whole: Path, tmp_path: Path) -> None:
    def refused(*files: Path) -> str:
        done = arbor("merge", *files, "--output", tmp_path / "all.jsonl")
        assert done.returncode == 2 and not (tmp_path / "all.jsonl").exists(), done.stderr
        (line,) = done.stderr.splitlines()
        return line

    for words, more in (
        ("another seed", ("--seed", "5")),
        ("another configuration", ("--set", "max_depth=7")),
        ("another number of questions", ("--limit", "5")),
    ):
        other = tmp_path / f"{words}.jsonl"
        assert solve(other, "--shard", "1/3", *more).returncode == 0
        assert words in refused(shards[1], other, shards[2])
    assert "nothing of shard 2/3" in refused(shards[0], shards[2])
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(shards[0].read_bytes())
    assert f"question 1 stands in {shards[0]}" in refused(*shards, copy)
    assert "expected a line of a run with --shard" in refused(whole)
    with shards[1].open("ab") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert "still writing" in refused(*shards)
    questions = tmp_path / "others.jsonl"
    questions.write_text("".join(HELD_OUT.read_text(encoding="utf-8").splitlines(keepends=True)[1 : LIMIT + 1]))
    other = tmp_path / "others.trees.jsonl"
    done = arbor("solve", "--config", CONFIG, "--questions", questions, "--output", other, "--shard", "2/3")
    assert done.returncode == 0, done.stderr
    assert "other questions" in refused(shards[0], other, shards[2])


def test_a_torn_shard_is_finished_by_its_command_or_by_merge(whole: Path, shards: list[Path], tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl"
    lines = shards[1].read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[:2]) + lines[2][:100])
    output = tmp_path / "all.jsonl"
    parts = (shards[0], torn, shards[2])
    done = arbor("merge", *parts, "--output", output)
    assert done.returncode == 2 and "1 of 11 questions are missing: shard 2/3 has 2 of 3 questions" in done.stderr
    assert not output.exists()
    done = arbor("merge", *parts, "--output", output, "--finish", HELD_OUT)
    assert done.returncode == 0, done.stderr
    assert rows(output) == rows(whole)
    again = solve(torn, "--shard", "2/3")
    assert again.returncode == 0, again.stderr
    assert rows(torn) == rows(shards[1])


def test_a_shard_file_takes_no_other_shard(shards: list[Path]) -> None:
    before = shards[0].read_bytes()
    done = solve(shards[0], "--shard", "2/3")
    assert done.returncode == 2 and "is not of shard 2/3" in done.stderr
    assert shards[0].read_bytes() == before


def test_sigterm_ends_a_run_within_a_grace_period_and_the_command_goes_on(whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "trees.jsonl"
    arguments = ("solve", "--config", CONFIG, "--questions", HELD_OUT, "--limit", 200, "--output", output)
    process = start(*arguments)
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.02)
    signalled = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and "terminated; " in err and "the same command goes on" in err
    assert time.monotonic() - signalled < 10
    kept = len(output.read_bytes().splitlines())
    assert 0 < kept < 200
    done = arbor(*(LIMIT + kept if one == 200 else one for one in arguments))
    assert done.returncode == 0, done.stderr
    assert {row["meta"]["index"] for row in rows(output)} >= set(range(LIMIT))
    assert [row for row in rows(output) if row["meta"]["index"] < LIMIT] == rows(whole)


@pytest.mark.parametrize("text", ["", "1", "/3", "1/", "4/3", "-1/3", "1/0", "0/0", "a/b", "1/3/5", "²/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--shard"):
        Shard.parse(text)


def questions(count: int) -> Iterator[Question]:
    return (Question(index, {"question": str(index)}, "") for index in range(count))


@pytest.mark.parametrize(("count", "of", "block"), [(10, 3, 0), (10, 3, 4), (7, 7, 0), (100, 8, 5), (3, 5, 2)])
def test_shards_divide_the_questions_and_keep_blocks_whole(count: int, of: int, block: int) -> None:
    parts = [[one.index for one in Shard(index, of).part(questions(count), block)] for index in range(of)]
    assert sorted(index for part in parts for index in part) == list(range(count))
    if block:
        places = {index: number for number, part in enumerate(parts) for index in part}
        assert all(places[index] == places[index // block * block] for index in range(count))
    else:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_needs_a_seed_and_a_question(tmp_path: Path) -> None:
    done = solve(tmp_path / "x.jsonl", "--shard", "1/3", "--set", "seed=null")
    assert done.returncode == 2 and "add --seed N" in done.stderr
    done = solve(tmp_path / "x.jsonl", "--shard", "3/5", limit=2)
    assert done.returncode == 2 and "expected fewer shards" in done.stderr

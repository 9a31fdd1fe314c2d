"""What `--live` shows: the facts of a real run, as plain lines without a terminal, as a panel on one."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from arbor.commands import arbor
from arbor.commands._live import ROWS, _NoBars, clock, safe, tree_lines
from arbor.commands.rounds import LIVE, tools
from mcts.trees.node import Node
from tests.conftest import run_here

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ("--questions", "models/tiny/data/heldout.jsonl", "--limit", "3")
RUN = [
    sys.executable, "-m", "arbor", "solve", "--live", "--config", "configs/tiny/sbs_1_5.yaml", *QUESTIONS, "--output",
]  # fmt: skip


def live_lines(*words: object) -> list[str]:
    """What a command says on standard error with --live and without a terminal."""
    done = run_here("-m", "arbor", *words, "--live")
    text = done.stderr
    assert done.returncode == 0, text
    assert "\r" not in text and "\x1b" not in text
    return text.splitlines()


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three searched questions, as a search for training leaves them; the facts of the run were plain lines."""
    path = tmp_path_factory.mktemp("trees") / "t.jsonl"
    search = ("--config", "configs/tiny/mcts_train.yaml", "--set", "iterations=8", *QUESTIONS)
    lines = live_lines("solve", *search, "--report", "--output", path)
    last = next(line for line in lines[::-1] if line.startswith("questions: 3 of 3"))
    for fact in ("accuracy: ", "throughput: ", "tokens: ", "engine: ", "interpreter: 0 of "):
        assert fact in last
    shares = [float(share) for share in re.findall(r"([\d.]+) %", last)]
    assert shares and all(0 <= share <= 100 for share in shares)
    return path


def test_a_run_leaves_its_report(trees: Path) -> None:
    assert trees.with_suffix(".report").joinpath("report.html").is_file()


def test_a_training_says_its_losses_and_what_is_left(trees: Path, tmp_path: Path) -> None:
    examples = tmp_path / "e.jsonl"
    words = ["--config", "configs/tiny/mcts_train.yaml", "--trees", str(trees), "--output", str(examples)]
    assert run_here("-m", "arbor", "examples", *words).returncode == 0
    keys = [f"examples=[{examples}]", f"output={tmp_path / 'out'}", "updates=2", "log_every=1"]
    sets = [word for key in keys for word in ("--set", key)]
    lines = live_lines("train", "--config", "configs/train/tiny.yaml", *sets)
    assert re.match(r"updates: 2 of 2; training: .*loss [\d.]+", lines[-1]), lines


def test_commands_over_saved_trees_count_them(trees: Path, tmp_path: Path) -> None:
    rerank = ("rerank", "--trees", trees, "--model", ROOT / "models/tiny/weights", "--output", tmp_path / "r.jsonl")
    commands = ("evaluate", trees, "--audit", tmp_path / "u.jsonl"), ("grade-trees", trees), rerank
    evaluated, graded, reranked = (live_lines(*words)[-1] for words in commands)
    assert evaluated.startswith("answers: ") and graded.startswith("trees: 3")
    assert reranked.startswith("questions: 3; accuracy: ")


def test_stages_of_rounds_are_live_where_the_command_can_be() -> None:
    commands = tools(live=True).commands
    assert {name for name, words in commands.items() if words[-1] == "--live"} == set(LIVE)
    for name in LIVE:
        found = arbor.get_command(click.Context(arbor), name)
        assert found is not None and "live" in {one.name for one in found.params}


def test_bars_of_others_are_left_out_and_their_messages_are_not() -> None:
    kept = io.StringIO()
    shown = _NoBars(kept)
    for text in ("a line\n", "\r 50%|", "\r100%|", "\n", "after\n", "\n"):
        shown.write(text)
    assert kept.getvalue() == "a line\nafter\n\n"


def test_on_a_terminal_the_tree_of_a_single_question_is_drawn() -> None:
    pytest.importorskip("rich")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "arbor", "ask", "--live", "Solve 4x^2+38x = 1632 for a positive integer x."]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, cwd=ROOT, stderr=follower, stdout=subprocess.DEVNULL, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "questions" in text and "engine" in text and re.search(r"\d+  value [+-]\d\.\d\d", text)


def test_what_a_model_wrote_gives_a_terminal_no_orders() -> None:
    assert safe("a\x1b[31m\x07\r\nb\u202ec", 20) == "a [31m b c"
    assert safe("x" * 100, 10) == "x" * 9 + "…"
    root = Node(visit_count=500)
    root.children = [Node(f"0.{at}", root, 1, text="\x1b]0;t\x07", value=0.1, visit_count=at) for at in range(100)]
    lines = tree_lines(root)
    assert len(lines) <= ROWS and "\x1b" not in "".join(lines)
    assert any("99  Q" in line for line in lines) and not any(re.match(r" +3  ", line) for line in lines)


def test_a_search_is_logged_to_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = subprocess.run(
        [*RUN, str(tmp_path / "t.jsonl"), "--track", "tensorboard"], cwd=ROOT, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    folders = {path.parent for path in (tmp_path / "t.logs").rglob("events*")}  # the configuration has one of its own
    runs = [accumulator.EventAccumulator(str(folder)).Reload() for folder in folders]
    (events,) = [run for run in runs if "accuracy" in run.Tags()["scalars"]]
    points = events.Scalars("accuracy")
    assert [point.step for point in points] == [1, 2, 3] and all(0 <= point.value <= 100 for point in points)
    spent = [point.value for point in events.Scalars("tokens_generated")]
    assert spent == sorted(spent) and spent[0] > 0


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (90061, "25:01:01")])
def test_time_left(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown

"""What `--live` shows: the facts of a real run, as plain lines without a terminal, as a panel on one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arbor.commands._live import ROWS, clock, safe, tree_lines
from mcts.trees.node import Node

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    sys.executable, "-m", "arbor", "solve", "--live", "--config", "configs/tiny/sbs_1_5.yaml",
    "--questions", "models/tiny/data/heldout.jsonl", "--limit", "3", "--output",
]  # fmt: skip


def test_without_a_terminal_the_facts_are_plain_lines(tmp_path: Path) -> None:
    done = subprocess.run([*RUN, str(tmp_path / "t.jsonl"), "--report"], cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text = done.stderr.decode()
    assert "\r" not in text and "\x1b" not in text
    last = next(line for line in text.splitlines()[::-1] if line.startswith("questions: 3 of 3"))
    for fact in ("accuracy: ", "throughput: ", "tokens: ", "engine: ", "interpreter: 0 of "):
        assert fact in last
    shares = [float(share) for share in re.findall(r"([\d.]+) %", last)]
    assert shares and all(0 <= share <= 100 for share in shares)
    assert (tmp_path / "t.report" / "report.html").is_file()


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

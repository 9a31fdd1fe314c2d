"""The grader as callers see it: golds, policies, limits, threads, coroutines, the command."""

import asyncio
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eval.grading.grader import Verdict, grade, grade_async
from eval.grading.worker import Workers

ROOT = Path(__file__).parents[2]
HANGS = [r"\sum_{k=1}^{10^{12}} k^k", r"\int_0^1 e^{-x^{x^x}} \, dx"]


def test_any_accepted_gold_is_enough():
    assert grade(["1", "2"], "2").verdict is Verdict.EQUAL
    assert grade(["1", "2"], "3").verdict is Verdict.DIFFERENT
    assert grade([], "3").verdict is Verdict.UNDECIDED


def test_an_unknown_policy_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"lenient.*default"):
        grade("1", "1", "lenient")


@pytest.mark.parametrize("hanging", HANGS)
def test_a_comparison_that_hangs_is_stopped_and_undecided(hanging):
    assert grade(hanging, "0.123").verdict is Verdict.UNDECIDED
    assert grade("x+1", "1+x").verdict is Verdict.EQUAL  # the next pair is graded as ever


def test_a_killed_comparison_leaves_the_worker_usable():
    workers = Workers(size=1, cpu_seconds=0.5)
    try:
        stopped = workers.compare(HANGS[0], "1", "default")
        assert stopped.verdict is Verdict.UNDECIDED
        assert "limit" in stopped.reason
        assert workers.compare("a+b", "b+a", "default").verdict is Verdict.EQUAL
    finally:
        workers.close()


def test_an_interrupted_comparison_does_not_answer_the_next_one(monkeypatch):
    workers = Workers(size=1)
    try:
        assert workers.compare("a+b", "b+a", "default").verdict is Verdict.EQUAL
        with monkeypatch.context() as patch:

            def interrupt(worker, request):
                worker.stdin.write(request + "\n")
                worker.stdin.flush()
                raise KeyboardInterrupt

            patch.setattr(workers, "_ask", interrupt)
            with pytest.raises(KeyboardInterrupt):
                workers.compare("x", "x", "default")
        assert workers.compare("a+b", "a-b", "default").verdict is Verdict.DIFFERENT
    finally:
        workers.close()


def test_memory_and_core_dumps_are_bounded():
    workers = Workers(size=1, memory_bytes=700 << 20)
    try:
        assert workers.compare("a+b", "b+a", "default").verdict is Verdict.EQUAL
        server = workers.idle.queue[0].pid
        child = Path(f"/proc/{server}/task/{server}/children").read_text().split()[0]
        limits = Path(f"/proc/{child}/limits").read_text()
    finally:
        workers.close()
    assert re.search(rf"Max address space +{700 << 20} ", limits)
    assert re.search(r"Max core file size +0 ", limits)


def test_threads_share_the_grader():
    pairs = [(f"{i}x+{i}", f"{i}(x+1)") for i in range(2, 26)]
    with ThreadPoolExecutor(8) as threads:
        grades = list(threads.map(lambda pair: grade(*pair), pairs))
    assert all(one.verdict is Verdict.EQUAL for one in grades)


async def test_grading_never_blocks_the_event_loop():
    gaps = []

    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(*(grade_async(r"\sum_{k=1}^{10^{12}} k^{k+1}", str(i)) for i in range(2)))
    ticking.cancel()
    assert all(one.verdict is Verdict.UNDECIDED for one in found)
    assert len(gaps) > 20  # the loop kept turning while the workers computed


def test_code_in_an_answer_is_never_run(tmp_path):
    target = tmp_path / "made"
    grade("5", f"__import__('pathlib').Path('{target}').touch()")
    grade(f"exec(\"open('{target}','w')\")", "sqrt(4)")
    assert not target.exists()


def test_a_script_without_a_main_guard_can_grade(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text("from eval.grading.grader import grade\nprint(grade('x+1', '1+x').verdict.value)\n")
    run = subprocess.run(
        [sys.executable, script], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run.stdout.split() == ["equal"]


def _command(*arguments):
    command = [sys.executable, "-m", "eval.grader", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_counts_verdicts_and_errors(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"gold": "1/2", "prediction": "0.5", "equal": True},
        {"gold": "1", "prediction": "2", "equal": True},
        {"gold": "3", "prediction": "3.0", "equal": False},
        {"gold": "4", "prediction": "5"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = _command("--pairs", file, "--json")
    result = json.loads(run.stdout)
    assert run.returncode == 0
    assert (result["pairs"], result["equal"], result["different"], result["undecided"]) == (4, 2, 2, 0)
    assert (result["right"], result["wrongly accepted"], result["wrongly rejected"]) == (1, 1, 1)
    assert [miss["gold"] for miss in result["misses"]] == ["1", "3"]


@pytest.mark.parametrize("content", ["not json\n", '{"gold": "1"}\n', "[1]\n"])
def test_bad_pairs_are_refused_with_file_and_line(tmp_path, content):
    file = tmp_path / "bad.jsonl"
    file.write_text(content)
    run = _command("--pairs", file)
    assert run.returncode == 2
    assert str(file) in run.stderr
    assert "line 1" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_missing_file_is_refused(tmp_path):
    assert _command("--pairs", tmp_path / "none.jsonl").returncode == 2

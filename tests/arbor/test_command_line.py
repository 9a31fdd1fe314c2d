"""The command `arbor` as people meet it: help, options, how it ends, and the scripts that stand for it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
import yaml

from arbor.commands import _own, arbor
from scripts.bench import all as all_benchmarks

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "configs/tiny"
HELD_OUT = str(ROOT / "models/tiny/data/heldout.jsonl")
GREEDY = ("--config", str(TINY / "greedy.yaml"))
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py"))
    if 'main("' in path.read_text(encoding="utf-8")
)


def start(*command: str, cwd: Path, **keys) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"}
    if command[0] == "-m":
        environment["PYTHONPATH"] = str(ROOT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | keys
    return subprocess.Popen([sys.executable, *command], cwd=cwd, env=environment, text=True, **pipes)


def run(*command: str, cwd: Path, **keys) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    process = start(*command, cwd=cwd, **keys)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def run_together(*commands: tuple[str, ...], cwd: Path) -> list[tuple[int, str, str]]:
    """`run` for commands that do not wait for each other: imports are most of what each takes."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda command: run(*command, cwd=cwd), commands))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- help


def test_the_help_lists_every_subcommand_and_imports_none(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['arbor', '--help']\n"
        "try: runpy.run_module('arbor', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'sympy', 'transformers', 'arbor.commands.solve'} & set(sys.modules)))"
    )
    done, out, err = run("-c", code, cwd=ROOT)
    assert done == 0 and out.rstrip().endswith("[]"), err
    for name in _own():
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", sorted(_own()))
def test_every_option_is_described(name: str) -> None:
    import click

    found = arbor.get_command(click.Context(arbor), name)
    assert found is not None and found.help and found.help.splitlines()[0].endswith(".")
    assert f"arbor {name}" in found.help  # an example
    for option in found.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


def test_one_thing_has_one_name() -> None:
    import click

    published = {
        "--custom_cfg": "--config", "--qaf": "--questions", "--question-answer-file": "--questions",
        "--tree_jsonl": "--trees", "--res_file": "--trees", "--output_dir": "--output", "--n": "--limit",
    }  # fmt: skip
    seen = set()
    for name in _own():
        found = arbor.get_command(click.Context(arbor), name)
        assert found is not None
        for option in found.params:
            for old in set(option.opts) & set(published):
                assert published[old] in option.opts, (name, old)
                seen.add(old)
    assert seen == set(published)


def test_documented_scripts_work_by_path_from_any_folder(tmp_path: Path) -> None:
    done = run_together(*((str(ROOT / script), "--help") for script in SCRIPTS), cwd=tmp_path)
    for script, (code, out, err) in zip(SCRIPTS, done, strict=True):
        assert code == 0 and out.startswith(f"Usage: {Path(script).name}"), (script, err)


def test_documented_scripts_work_as_modules(tmp_path: Path) -> None:
    assert len(SCRIPTS) >= 21
    modules = ("scripts.demo", "scripts.serve", "solver_demo", "scripts.bench")
    for code, out, err in run_together(*(("-m", module, "--help") for module in modules), cwd=tmp_path):
        assert code == 0 and out.startswith("Usage:"), err


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    bad = (
        (("solve", "--questions", HELD_OUT), "Missing option '--config'"),
        (("solve", *GREEDY), "--questions FILE or --question TEXT"),
        (("solve", *GREEDY, "--qestions", "x"), "--questions"),
        (("solve", *GREEDY, "--questions", HELD_OUT, "--limit", "many"), "--limit many: expected a whole number"),
        (("evaluate",), "expected files"),
        (("demo", "--questions", HELD_OUT, HELD_OUT), "files of one name"),
        (("nothing",), "nothing"),
        (("bench", "end-to-endd"), "end_to_endd: no such benchmark; there are end_to_end"),
    )
    done = run_together(*(("-m", "arbor", *command) for command, _ in bad), cwd=tmp_path)
    for (_, words), (code, _, err) in zip(bad, done, strict=True):
        assert code == 2 and words in err and len(err.splitlines()) == 1, err


def test_a_benchmark_is_named_as_commands_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(all_benchmarks, "run", lambda name, seconds: asked.append(name) or [])
    assert all_benchmarks.measure_all(["end-to-end", "tree_file"], tmp_path / "bench.json") == 0
    assert asked == ["end_to_end", "tree_file"]


# --- configurations


def test_the_effective_configuration_is_printed_and_read_again(tmp_path: Path) -> None:
    command = ["-m", "arbor", "solve", *GREEDY, "--set", "max_depth=5", "--seed", "7", "--print-config"]
    code, out, err = run(*command, cwd=tmp_path)
    keys = yaml.safe_load(out)
    assert code == 0 and (keys["max_depth"], keys["seed"], keys["mode"], keys["max_tokens"]) == (5, 7, "react", 100), (
        err
    )
    (tmp_path / "again.yaml").write_text(out, encoding="utf-8")
    again = run("-m", "arbor", "solve", "--config", "again.yaml", "--print-config", cwd=tmp_path)
    assert again == (0, out, "")


def test_paths_of_a_configuration_are_found_beside_it_and_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    from models.engines.config import load_config

    monkeypatch.chdir(tmp_path)
    weights = ROOT / "models/tiny/weights"
    assert Path(str(load_config(TINY / "greedy.yaml").model_dir)).samefile(weights)  # above the folder configs
    (tmp_path / "conf" / "mine").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    path = tmp_path / "conf" / "c.yaml"
    path.write_text("model_dir: mine", encoding="utf-8")
    assert load_config(path).model_dir == str(tmp_path / "conf" / "mine")  # beside it, before the working folder
    assert load_config(path, ["model_dir=mine"]).model_dir == "mine"  # of the command line: the working folder's
    path.write_text("model_dir: other", encoding="utf-8")
    assert load_config(path).model_dir == "other"
    path.write_text("model_dir: none", encoding="utf-8")
    assert load_config(path).model_dir == "none"


# --- one question


def test_the_example_of_the_help_is_solved_and_its_record_written(tmp_path: Path) -> None:
    question = "A garden is 7 m longer than it is wide. Its area is 744 square metres. How wide is it?"
    asked = ("ask", question), ("solve", "--config", str(TINY / "sbs_3_5.yaml"), "--question", question)
    commands = [("-m", "arbor", *words, "--output", f"{words[0]}.jsonl") for words in asked]
    for command, (code, out, err) in zip(commands, run_together(*commands, cwd=tmp_path), strict=True):
        assert code == 0 and "answer: 24 " in out, err
        (record,) = lines(tmp_path / command[-1])
        assert record["question"] == question and record["prediction"]["final_answer"] == "24"
    for code, _, err in run_together(*commands, cwd=tmp_path):
        assert code == 2 and "exists already" in err


def small_window(folder: Path) -> list[str]:
    """Options of a search whose prompts do not fit into the model's window."""
    import shutil

    model = folder / "model"
    shutil.copytree(ROOT / "models/tiny/weights", model)
    keys = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(keys | {"max_position_embeddings": 16}), encoding="utf-8")
    return [*GREEDY, "--set", f"model_dir={model}"]


def test_prompts_that_do_not_fit_are_counted_and_fail_the_run_where_nothing_fits(tmp_path: Path) -> None:
    options = small_window(tmp_path)
    (code, out, err), (asked, _, refused) = run_together(
        ("-m", "arbor", "solve", *options, "--questions", HELD_OUT, "--limit", "3", "--output", "o.jsonl"),
        ("-m", "arbor", "ask", *options, "Find x with x + 1 = 3 and so on and on."), cwd=tmp_path,
    )  # fmt: skip
    said = [line for line in err.splitlines() if "| " not in line]
    assert code == 2 and out.strip() == "o.jsonl" and "no answer to 3 of 3 questions: prompt too long 3" in said
    assert said[-1].startswith("error: o.jsonl: no question could be searched: prompt too long")
    assert [row["meta"]["no_answer"] for row in lines(tmp_path / "o.jsonl")] == ["prompt too long"] * 3
    assert asked == 2
    assert refused.splitlines()[-1].startswith("error: the question could not be searched: prompt too long")


# --- how a run ends


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (not path.exists() or path.read_bytes().count(b"\n") < count):
        time.sleep(0.02)


def test_a_stopped_run_says_what_it_keeps_and_counts_on(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as threads:
        first = threads.submit(stop_and_go_on, signal.SIGINT, 130, "interrupted", tmp_path)
        second = threads.submit(stop_and_go_on, signal.SIGTERM, 143, "terminated", tmp_path)
        first.result(), second.result()


def stop_and_go_on(number: int, code: int, word: str, folder: Path) -> None:
    path, tmp_path = folder / f"{word}.jsonl", folder
    command = ["-m", "arbor", "solve", *GREEDY, "--questions", HELD_OUT, "--limit", "150", "--output", str(path)]
    running = start(*command, "--set", "batch_size=1", cwd=tmp_path)
    wait_for_lines(path, 3)
    running.send_signal(number)
    _, err = running.communicate(timeout=120)
    kept = len(lines(path))
    (said,) = [line for line in err.splitlines() if line and "| " not in line]
    assert running.returncode == code and 3 <= kept < 150
    assert said == f"{word}; {path} keeps {kept} of 150 questions, and the same command goes on from there"
    done, _, err = run(*command, cwd=tmp_path)
    right = sum((row["prediction"] or {}).get("correct") is True for row in lines(path))
    assert done == 0 and f"right {right} of 150 graded" in err.splitlines()


def when_read(pipe: Path, running: subprocess.Popen[str]) -> IO[bytes]:
    """The writing end of a pipe, once a process reads it."""
    while running.poll() is None:
        with suppress(OSError):
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(descriptor, True)
            return open(descriptor, "wb", buffering=0)
        time.sleep(0.02)
    raise AssertionError(running.communicate())


ENDLESS = {
    "evaluate": ("FILE",),
    "compare": ("FILE", "FILE"),
    "report": ("FILE", "--output", "out"),
    "view": ("FILE", "--output", "out"),
    "merge": ("FILE", "--output", "out"),
    "reexecute": ("FILE",),
    "decide": ("--config", str(TINY / "mcts.yaml"), "--trees", "FILE"),
    "correct": ("--config", str(TINY / "mcts.yaml"), "--trees", "FILE", "--output", "out"),
    "solve": ("--config", str(TINY / "mcts.yaml"), "--questions", "FILE", "--output", "out"),
    "demo": ("--questions", "FILE"),
    "ask": ("--config", "FILE", "1 + 1?"),
    "infer": ("--config", "FILE"),
    "serve": ("--config", "FILE"),
}
"""Command → arguments with which it reads a file that never ends."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Command → its exit code and standard error after SIGTERM; they are stopped beside each other."""
    with ThreadPoolExecutor(4) as threads:
        found = {name: threads.submit(stop, name, tmp_path_factory.mktemp(name)) for name in ENDLESS}
    return {name: one.result() for name, one in found.items()}


@pytest.mark.parametrize("name", ENDLESS)
def test_sigterm_ends_every_command(name: str, stopped: dict[str, tuple[int, str]]) -> None:
    code, err = stopped[name]
    assert code == 143 and "terminated" in err and "Traceback" not in err


def stop(name: str, folder: Path) -> tuple[int, str]:
    pipe = folder / "in.jsonl"
    os.mkfifo(pipe)
    words = [str(pipe) if word == "FILE" else word for word in ENDLESS[name]]
    running = start("-m", "arbor", name, *words, cwd=folder)
    fill = b""
    if name == "decide":  # works line by line, and stops between two lines
        leaf = {"text": "", "final_answer": "1", "value": 0.5}
        fill = json.dumps({"question": "Q", "answer": "1", "react": {"0": leaf, "0.0": leaf}}).encode() + b"\n"
    with when_read(pipe, running) as feeding:

        def feed() -> None:
            with suppress(BrokenPipeError, ValueError):
                while fill:
                    feeding.write(fill)

        thread = threading.Thread(target=feed)
        thread.start()
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=60)
        thread.join()
    return running.returncode, err


def test_a_stopped_question_promises_nothing(tmp_path: Path) -> None:
    endless = ("--config", str(TINY / "mcts.yaml"), "--set", "iterations=100000")
    running = start("-m", "arbor", "ask", *endless, "Find the positive integer x with x^2 + 3x = 70.", cwd=tmp_path)
    assert running.stdout is not None and running.stdout.readline().startswith("--- 0.")
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert (running.returncode, err.strip()) == (143, "terminated; the question is not answered")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    command = ["-m", "arbor", "solve", *GREEDY, "--questions", HELD_OUT, "--limit", "100", "--output", str(path)]
    running = start(*command, "--set", "batch_size=1", cwd=tmp_path)
    wait_for_lines(path, 2)
    room = path.stat().st_size + 100
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (room, room))  # of this process alone
    _, err = running.communicate(timeout=120)
    kept = len(lines(path))  # each of them is whole
    assert running.returncode == 2 and 2 <= kept < 100
    said = [line for line in err.splitlines() if line and "| " not in line]
    assert said == [f"error: {path}: cannot be written: File too large; its {kept} finished questions are kept"]
    assert run(*command[:-3], "5", *command[-2:], cwd=tmp_path)[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_outputs_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    row = {"code": ["$\\boxed{a}$"], "pred": ["a"], "gt": "b", "answer": "ab"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with open("/dev/full", "w") as full:
        code, _, err = run("-m", "arbor", "evaluate", "rows.jsonl", cwd=tmp_path, stdout=full)
    assert code == 2 and err.splitlines()[-1] == "error: standard output: cannot be written: No space left on device"
    code, _, err = run("-m", "arbor", "problems", "--limit", "3", "--output", "/dev/full", cwd=tmp_path)
    assert code == 2 and err.splitlines()[-1] == "error: /dev/full: cannot be written: No space left on device"


# --- the published scripts


def test_the_greedy_script_is_greedy_unless_told_otherwise(tmp_path: Path) -> None:
    keys = yaml.safe_load((TINY / "sbs_3_5.yaml").read_text(encoding="utf-8"))
    assert keys["temperature"] == 1.0
    words = (str(ROOT / "react_batch_demo.py"), "--custom_cfg", str(TINY / "sbs_3_5.yaml"), "--qaf", HELD_OUT)
    more = {"one": ("--seed", "3"), "two": ("--seed", "3"), "warm": ("--seed", "6", "--set", "temperature=0.9")}
    commands = ((*words, "--limit", "4", "--output", f"{name}.jsonl", *own) for name, own in more.items())
    for code, _, err in run_together(*commands, cwd=tmp_path):
        assert code == 0, err
    one, two, warm = ([row["react"] for row in lines(tmp_path / f"{name}.jsonl")] for name in ("one", "two", "warm"))
    assert one == two != warm
    assert all(tag == "0" + ".0" * tag.count(".") for tree in one for tag in tree)


def test_several_words_after_one_option_and_one_word_after_several(tmp_path: Path) -> None:
    import click

    found = arbor.get_command(click.Context(arbor), "examples")
    assert found is not None
    for words in (["--trees", "a", "b", "--output", "o"], ["--output", "o", "--trees", "a", "--trees=b"]):
        context = found.make_context("examples", [*GREEDY, *words, "--rule", "correct=1"])
        assert context.params["trees"] == (Path("a"), Path("b")) and context.params["output"] == Path("o")

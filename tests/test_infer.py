"""ToRA's inference and re-execution as commands. Tests are named by the fault of the published programs that these do
not have."""

from __future__ import annotations

import ast
import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arbor.commands import infer
from arbor.commands import reexecute as reexecution
from arbor.commands._running import run as run_command
from arbor.commands.reexecute import CLASSES, reexecute, replaced
from eval.data.datasets import load
from eval.grading.extract import extract
from eval.grading.tora import extract_tora, reference_fields
from eval.report.methods import by_data_set, evaluate, tasks_table
from eval.report.rows import read_rows
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.markup import make_markup
from mcts.search.driver import Solver
from models.engines.config import RunConfig
from tests.conftest import run_here, write_jsonl
from tests.mcts.conftest import ScriptedModel, ask, exact

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--custom_cfg", str(ROOT / "configs/tiny/greedy.yaml"), "--set", f"model_dir={ROOT / 'models/tiny/weights'}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's own problems in the form of GSM8K."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "gsm8k").mkdir()
    lines = (ROOT / "models/tiny/data/dev.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    rows = [json.loads(line) for line in lines]
    rows = [
        {"question": row["question"], "answer": f"Think. #### {row['answer']}", "idx": at}
        for at, row in enumerate(rows)
    ]
    write_jsonl(folder / "gsm8k/test.jsonl", rows)
    return folder


def command(data: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "scripts/infer.py"),
        *TINY,
        "--data_dir",
        str(data),
        "--output_dir",
        str(output),
        *more,
    ]


def run(data: Path, output: Path, *more: str) -> list[dict]:
    """The rows of a run, without what the clock says."""
    done = run_here(*command(data, output, *more)[1:])
    assert done.returncode == 0, done.stderr
    return read(Path(next(line for line in done.stdout.splitlines() if line.endswith(".jsonl"))))


def read(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for key in ("tokens_computed", "tokens_reused", "fingerprint", "config"):
            del row["meta"][key]
        row["meta"] = {key: value for key, value in row["meta"].items() if not key.endswith("_seconds")}
    return rows


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run(data, tmp_path_factory.mktemp("whole"))


def test_rows_have_the_published_columns(whole: list[dict]) -> None:
    for index, row in enumerate(whole):
        assert {"idx", "question", "gt_cot", "gt", "code", "pred", "report", "score"} <= row.keys()
        assert row["idx"] == index and row["gt_cot"] == "Think." and len(row["code"]) == len(row["pred"]) == 1
    assert sum(row["score"][0] for row in whole) >= 3


def test_a_crash_loses_no_finished_question(data: Path, whole: list[dict], tmp_path: Path) -> None:
    arguments = command(data, tmp_path, "--set", "batch_size=2")
    running = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None and sum(len(p.read_bytes().splitlines()) for p in tmp_path.rglob("*.jsonl")) < 3:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (path,) = tmp_path.rglob("*.jsonl")
    assert 3 <= len(path.read_bytes().splitlines()) < 24
    assert run(data, tmp_path, "--set", "batch_size=2") == whole
    assert [path] == list(tmp_path.rglob("*.jsonl"))


def test_parts_of_a_data_set_are_read_together_as_the_whole(data: Path, whole: list[dict], tmp_path: Path) -> None:
    parts = run(data, tmp_path, "--end", "10") + run(data, tmp_path, "--start", "10")
    assert parts == whole
    sets = by_data_set({path: read_rows(path, "tora") for path in tmp_path.rglob("*.jsonl")})
    assert len(sets["gsm8k"]) == 24 and "gsm8k  24" in tasks_table(sets, "tora")


def test_an_output_that_cannot_be_written_is_found_before_the_model_is_loaded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(infer, "load_model", None)
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        infer.command.main(command(data, tmp_path / "file")[2:], standalone_mode=False)


def test_sampling_is_seeded_and_other_settings_are_never_mixed_in(data: Path, tmp_path: Path) -> None:
    sampled = ("--temperature", "1", "--n_sampling", "3", "--end", "4")
    first, again = run(data, tmp_path / "a", *sampled), run(data, tmp_path / "b", *sampled)
    other = run(data, tmp_path / "a", *sampled, "--top_p", "0.5")
    assert first == again and [row["code"] for row in first] != [row["code"] for row in other]
    assert len(list((tmp_path / "a").rglob("*.jsonl"))) == 2 and all(len(row["pred"]) == 3 for row in first)
    seeded = run(data, tmp_path / "c", *sampled, "--seed", "1")
    assert [row["code"] for row in first] != [row["code"] for row in seeded]


def test_metrics_are_plain_numbers_over_all_samples(data: Path, tmp_path: Path) -> None:
    rows = run(data, tmp_path, "--temperature", "1", "--n_sampling", "2", "--end", "8")
    (path,) = tmp_path.rglob("*.metrics")
    lines = dict(line.split(": ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line)
    means = ast.literal_eval(lines["Mean score"])
    assert means == [round(100 * sum(row["score"][at] for row in rows) / 8, 1) for at in (0, 1)]
    assert lines["Num samples"] == lines["Num scores"] == "8" and lines["Timeout samples"] == "0"
    path.unlink()  # as a run leaves it that is killed after its last question
    (output,) = tmp_path.rglob("*.jsonl")
    output.write_text("".join(reversed(output.read_text(encoding="utf-8").splitlines(True))), encoding="utf-8")
    assert run(data, tmp_path, "--temperature", "1", "--n_sampling", "2", "--end", "8") == rows and path.exists()


def test_the_choice_of_questions_belongs_to_the_seed_not_to_the_clock(data: Path) -> None:
    def chosen(*more: str) -> list[int]:
        options = infer.Options(**infer.command.make_context("infer", ["--data_dir", str(data), *more]).params)
        return [item.index for item in infer.choose_items(options, "gsm8k", options.seed or 0)]

    shuffled = chosen("--shuffle")
    assert shuffled == chosen("--shuffle") != sorted(shuffled) and sorted(shuffled) == list(range(24))
    assert chosen("--num_test_sample", "5") == chosen("--num_test_sample", "5") and len(chosen("--end", "5")) == 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("--data_name", "gsm9k"), ["gsm9k", "did you mean 'gsm8k'"]),
        (("--data_dir", "nowhere"), ["nowhere/gsm8k/test.jsonl"]),
        (("--set", "seeed=1"), ["seeed", "'seed'"]),
        (("--start", "99"), ["--start 99"]),
        (("--end", "-2"), ["--end -2", "-1"]),
        (("--num_test_sample", "-7"), ["--num_test_sample -7", "-1"]),
        (("--split", "train"), ["train.jsonl"]),
        (("--split", "words"), ['gsm8k, row 1: "idx"', "'b'"]),
        (("--split", "twice"), ['gsm8k: 2 rows have "idx" 5']),
        (("--output_dir", "/dev/null"), ["/dev/null", "Not a directory"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    data: Path, tmp_path: Path, line: tuple[str, ...], words: list
) -> None:
    for split, indices in (("words", ["7", "b"]), ("twice", [5, "5"])):
        rows = [{"question": "1 + 1?", "answer": "#### 2", "idx": index} for index in indices]
        write_jsonl(data / f"gsm8k/{split}.jsonl", rows)
    done = subprocess.run(command(data, tmp_path, *line), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


# --- rows of a scripted model


def rows_of(say, **keys: object) -> dict:
    """The row that a scripted model's solution of one question becomes."""
    keys = {"prompt_wrap": "tora", "result_unwrap": "tora", "mode": "react", "errors_threshold": 8} | keys
    config = RunConfig.model_validate({"max_depth": 8, "max_tool_calls": 3, "train_prompt": True} | keys)

    async def solve() -> dict:
        async with ForkInterpreter(profile="tora", preload=()) as interpreter:
            markup = make_markup(config.prompt_wrap, "\n", train_prompt=True, extract=extract)
            window = int(keys.get("max_tokens", 1 << 20))
            solver = Solver(config, ScriptedModel(say, window=window), markup, interpreter, exact)
            return await infer.RowSolver(solver).solve(ask(idx=0, gt="3", answer="3"))

    return asyncio.run(solve())


def test_no_solution_is_cut_where_it_says_question() -> None:
    text = "Question: what is asked? Count.\n```python\nprint(3)\n```\n"
    row = rows_of(lambda p, i: "Question: done. It is $\\boxed{3}$." if "output" in p else text)
    assert row["code"][0].startswith("Question: what") and row["code"][0].endswith("It is $\\boxed{3}$.")
    assert row["pred"] == ["3"] and row["score"] == [True] and row["meta"]["tool_calls"] == [1]
    assert "```\n```output\n3\n```\nQuestion: done." in row["code"][0]


def test_a_program_that_kills_its_worker_costs_only_itself() -> None:
    kill = "```python\nimport os\nos._exit(0)\n```"
    row = rows_of(lambda p, i: "It is $\\boxed{3}$." if "```output\nProcessError" in p else kill)
    assert row["score"] == [True]


def test_a_prompt_that_is_too_long_gives_a_row_without_an_answer() -> None:
    row = rows_of(lambda p, i: "", max_tokens=10)
    assert row["pred"] == [""] and row["score"] == [False] and row["report"] == ["no answer"]


# --- data and re-execution


def test_questions_are_found_whatever_the_case_of_their_columns(tmp_path: Path) -> None:
    (tmp_path / "svamp").mkdir()
    row = {"body": "Tom has 3 pens", "question": "How many?", "answer": 3.0, "equation": "3"}
    write_jsonl(tmp_path / "svamp/test.jsonl", [row])
    (item,) = load("svamp", tmp_path)
    assert item.question == "Tom has 3 pens. How many?" and item.answers == ("3",)
    assert reference_fields("svamp", row, "3") == {"gt_cot": "3", "gt": "3"}


@pytest.mark.parametrize(
    ("answer", "kind", "gt"),
    [("1/4", "decimal_number", "0.25"), ("4,656", "integer_number", "4656"), ("20%", "decimal_number", "0.2"),
     ("surplus", "extractive_text", "surplus")],
)  # fmt: skip
def test_gold_numbers_of_tables_are_written_as_published(answer: str, kind: str, gt: str) -> None:
    assert reference_fields("tabmwp", {"ans_type": kind, "solution": "s"}, answer) == {"gt_cot": "s", "gt": gt}


def test_gold_columns_of_the_published_files_are_reproduced(reference: Path) -> None:
    (path,) = (reference / "tora/outputs").glob("*/gsm8k/*.jsonl")
    items = {item.index: item for item in load("gsm8k", reference / "data")}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        made = infer.question(items[row["idx"]], "gsm8k").item
        assert {key: made[key] for key in ("question", "gt_cot", "gt")} == {
            key: row[key] for key in ("question", "gt_cot", "gt")
        }


def test_every_data_set_gives_questions_with_gold_columns(reference: Path) -> None:
    for name in ("math", "gsm-hard", "svamp", "asdiv", "mawps", "tabmwp"):
        for item in load(name, reference / "data"):
            made = infer.question(item, name).item
            assert made["question"] == item.question.strip() and made["gt_cot"]
            assert made["gt"] or item.index == 3526  # the one answer that the published normal form deletes


def test_published_programs_print_what_was_recorded(reference: Path, tmp_path: Path) -> None:
    (path,) = (reference / "tora/outputs").glob("*/gsm8k/*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()[:120]
    (tmp_path / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report, different = reexecute(tmp_path / "some.jsonl", 20)
    assert report["classes"] == {"equal": 120} and not different and report["verdicts changed"] == 0


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"code": [None]}, (), "r.jsonl:1: not a row of a ToRA-style output file"),
        ({"pred": "18"}, (), "r.jsonl:1: not a row of a ToRA-style output file"),
        ({"score": "x"}, (), "r.jsonl:1: not a row of a ToRA-style output file"),
        ({}, ("--timeout", "nan"), "--timeout nan"),
        ({}, ("--differences", "/nowhere/d.jsonl"), "/nowhere/d.jsonl: cannot be written: No such file"),
        ({}, ("--differences", "r.jsonl"), "r.jsonl: is an input"),
    ],
)
def test_bad_input_of_reexecution_is_found_before_any_program_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    change: dict,
    more: tuple,
    words: str,
) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", [{"code": ["x"], "pred": ["1"], "gt": "1", "score": [True]} | change])
    monkeypatch.setattr(reexecution, "run_all", None)
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    assert run_command(reexecution.command, "arbor", [str(path), *more]) == 2
    assert words in capsys.readouterr().err and path.read_bytes() == before


def test_a_changed_output_is_found_and_graded_again(tmp_path: Path) -> None:
    code = "```python\nprint({})\n```\n```output\n{}\n```"
    rows = [
        {"gt": "4", "code": [code.format("2 + 2", "5")], "pred": ["5"]},
        {"gt": "4", "code": [code.format("{3, 1, 2}", "{1, 3, 2}")], "pred": ["{1,3,2}"]},
    ]
    report, different = reexecute(write_jsonl(tmp_path / "rows.jsonl", rows), 20)
    assert report["classes"] == {"order of a set or a sum": 1, "something else": 1}
    assert (report["re-graded right"], report["right after re-execution"], report["verdicts changed"]) == (0, 1, 1)
    assert [one["printed"] for one in different] == ["4", "{1, 2, 3}"]


@pytest.mark.parametrize(
    ("recorded", "printed", "name"),
    [
        ("1.4142135623730951", "1.4142135623730950", "last digits of floats"),
        ("1.41", "1.42", "something else"),
        ("x**2 + 1", "1 + x**2", "order of a set or a sum"),
        ("0.5", "1/2", "another form of an equal value"),
        ("TypeError: a", "TypeError: b", "the same error in other words"),
        ("3", "ValueError: b", "an error now, none then"),
        (
            "timeout_decorator.timeout_decorator.TimeoutError: 'Timed Out'",
            "Timeout Error",
            "the time limit, then and now",
        ),
        ("5", "Timeout Error", "the time limit, then or now"),
        ("<f at 0x7f01>", "<f at 0x7f02>", "an address in memory"),
        ("ValueError", "ModuleNotFoundError: No module named 'scipy'", "a package that is not installed"),
    ],
)
def test_differences_are_named_by_their_cause(recorded: str, printed: str, name: str) -> None:
    assert next(kind for kind, holds in CLASSES.items() if holds(recorded, printed)) == name


def test_outputs_are_replaced_in_order() -> None:
    code = "".join(f"```python\n{n}\n```\n```output\n{n}\n```\n" for n in (1, 2))
    assert replaced(code, ["a", "b"]) == code.replace("output\n1", "output\na").replace("output\n2", "output\nb")


def test_ten_tasks_and_their_average_are_one_table(tmp_path: Path) -> None:
    for name in ("gsm8k", "math", "gsm-hard", "svamp", "tabmwp", "asdiv", "mawps"):
        (tmp_path / name).mkdir()
        kinds = ("singleeq", "singleop", "addsub", "multiarith")
        rows = [{"idx": n, "gt": "1", "code": ["1"], "pred": [str(n % 2)]} for n in range(8)]
        if name == "mawps":
            rows = [row | {"type": kinds[row["idx"] % 4]} for row in rows]
        write_jsonl(tmp_path / name / "test.jsonl", rows)
    files = list(tmp_path.rglob("*.jsonl"))
    lines = tasks_table(by_data_set({path: read_rows(path, "tora") for path in files}), "tora").splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "gsm8k", "math", "gsm-hard", "svamp", "tabmwp", "asdiv",
        "singleeq", "singleop", "addsub", "multiarith", "mawps", "AVG@10",
    ]  # fmt: skip
    assert lines[-1].split()[-1] == "50.00"


def test_rows_of_unequal_length_are_not_padded(tmp_path: Path) -> None:
    rows = [{"gt": "1", "code": ["1"] * n, "pred": ["1"] + ["0"] * (n - 1)} for n in (1, 3)]
    result = evaluate(read_rows(write_jsonl(tmp_path / "r.jsonl", rows), "tora"), "tora", [])
    (mean,) = (one for one in result["methods"] if one["method"] == "mean of n")
    assert round(mean["percent"], 1) == round(100 * (1 + 1 / 3) / 2, 1)


def test_the_recorded_answers_come_out_of_our_own_rows_again() -> None:
    row = rows_of(lambda p, i: "It is $\\boxed{3.0}$.")
    assert row["pred"] == [extract_tora(row["code"][0])] == ["3"]

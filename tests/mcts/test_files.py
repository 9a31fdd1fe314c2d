"""Question files, tree files, and runs that are stopped and continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.data.questions import count_questions, read_questions
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.jsonl import read_objects
from mcts.question import Question
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter, read_tree_lines, unfinished_output
from mcts.trees.record import TreeError, from_record
from models.training.imitation import read_rows
from tests.conftest import write_jsonl
from tests.mcts.conftest import ScriptedModel, final_step, make_solver, without_seconds

NODE = {"text": "", "value": -100}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("q.jsonl", '{"question": "a"}\n{"question": 5}\n', [":2", '"question"']),
        ("q.jsonl", '{"question": "a"}\n{"question": "b"\n', [":2", "not valid JSON"]),
        ("q.jsonl", '{"answer": "a"}\n', [":1", '"question" is missing']),
        ("q.jsonl", "[1]\n", [":1", "expected an object"]),
        ("q.jsonl", '{"question": "a", "answer": {"value": 1}}\n', [":1", '"answer": expected a text']),
        ("q.jsonl", '{"question": "a", "answer": [null]}\n', [":1", '"answer": expected a text']),
        ("q.jsonl", "\n\n", ["no question in it"]),
        ("q.json", '[{"question": "a"}, {"question": " "}]', ["item 1"]),
        ("q.json", '{"questions": []}', ["expected a list"]),
        ("q.json", "[", ["not valid JSON"]),
        ("q.json", "[\n1\n2]", ["line 3"]),
        ("q.jsonl", "\n" + "[" * 100_000, [":2", "cannot be read as JSON"]),
        ("q.jsonl", f'{{"question": {"9" * 5000}}}', [":1", "cannot be read as JSON"]),
    ],
)
def test_a_bad_question_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        count_questions(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), str(caught.value)


def test_questions_come_from_lists_examples_and_lines(tmp_path: Path) -> None:
    items = [{"question": "a", "answer": 5, "level": 1}, {"question": "b", "answer": ["x", "y"]}]
    (tmp_path / "a.json").write_text(json.dumps(items), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"example": items}), encoding="utf-8")
    write_jsonl(tmp_path / "c.jsonl", items)
    for name in ("a.json", "b.json", "c.jsonl"):
        first, second = read_questions(tmp_path / name)
        assert (first.answers, second.answers) == (("5",), ("x", "y")) and first.item["level"] == 1


def test_training_needs_answers(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "q.jsonl", [{"question": "a", "answer": "1"}, {"question": "b"}])
    with pytest.raises(UserError, match=r':2: "answer" is missing'):
        count_questions(path, need_answer=True)


def _questions(count: int) -> list[Question]:
    return [Question(index, {"question": f"q{index % 3}", "answer": "7"}, f"f:{index}") for index in range(count)]


async def _run(
    path: Path, interpreter: ForkInterpreter, count: int, in_flight: int, stop_after: int | None = None
) -> None:
    solver = make_solver(ScriptedModel(lambda prompt, index: final_step("7")), interpreter, mode="react")
    solver.meta = {"fingerprint": "f"}
    writer = TreeWriter(path, "f")
    writer.open(resume=True)
    ticks = 0

    def tick(record: dict) -> None:
        nonlocal ticks
        ticks += 1
        assert f'"index": {record["meta"]["index"]},' in path.read_text(encoding="utf-8"), "on disk before the tick"
        if ticks == stop_after:
            raise KeyboardInterrupt

    await run_file(solver, _questions(count), writer, in_flight, tick)


def _without_seconds(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["meta"] = without_seconds(row["meta"])
    return rows


async def test_a_stopped_run_goes_on_and_ends_with_the_same_file(tmp_path: Path, interpreter: ForkInterpreter) -> None:
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    await _run(whole, interpreter, 12, in_flight=1)
    with pytest.raises(KeyboardInterrupt):
        await _run(stopped, interpreter, 12, in_flight=5, stop_after=4)
    with stopped.open("a", encoding="utf-8") as file:
        file.write('{"question": "torn')
    done = len(stopped.read_text(encoding="utf-8").splitlines()) - 1
    assert 4 <= done < 12
    await _run(stopped, interpreter, 12, in_flight=3)
    assert _without_seconds(stopped) == _without_seconds(whole)
    assert [row["meta"]["index"] for row in _without_seconds(stopped)] == list(range(12))


async def test_memory_is_bounded_by_what_is_in_flight(tmp_path: Path, interpreter: ForkInterpreter) -> None:
    solver = make_solver(ScriptedModel(lambda prompt, index: final_step("7")), interpreter, mode="react")
    solver.meta = {"fingerprint": "f"}
    writer = TreeWriter(tmp_path / "o.jsonl", "f")
    writer.open(resume=True)
    taken = finished = most = 0

    def source() -> Iterator[Question]:
        nonlocal taken, most
        for question in _questions(300):
            taken += 1
            most = max(most, taken - finished)
            yield question

    def tick(record: dict) -> None:
        nonlocal finished
        finished += 1

    await run_file(solver, source(), writer, 4, tick)
    assert finished == 300 and most <= 8


def test_another_run_is_never_mixed_in_or_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text(json.dumps({"question": "a", "meta": {"index": 0, "fingerprint": "f", "seed": 1}}) + "\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match="another configuration"):
        TreeWriter(path, "g").open(resume=True)
    with pytest.raises(UserError, match="exists already"):
        TreeWriter(path, "f").open(resume=False)
    path.write_text("something else\n")
    with pytest.raises(UserError, match="not a line that this command wrote"):
        TreeWriter(path, "f").open(resume=True)
    assert before != path.read_bytes() == b"something else\n"


@pytest.mark.parametrize("text", ["my notes", '{"question": "a"}', '[{"question": "a"}]'])
def test_a_foreign_file_without_a_last_line_break_is_not_taken_for_a_torn_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="not a line that this command wrote"):
        TreeWriter(path, "f").open(resume=True)
    assert path.read_text(encoding="utf-8") == text


def test_a_whole_line_that_lost_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    first, second = ({"question": "a", "meta": {"index": at, "fingerprint": "f", "seed": 1}} for at in range(2))
    path.write_text(json.dumps(first), encoding="utf-8")
    writer = TreeWriter(path, "f")
    writer.open(resume=True)
    writer.append(1, second)
    writer.finish()
    assert [row for _, row in read_objects(path)] == [first, second]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    first, second = TreeWriter(tmp_path / "o.jsonl", "f"), TreeWriter(tmp_path / "o.jsonl", "f")
    first.open(resume=True)
    with pytest.raises(UserError, match="another run is writing it"):
        second.open(resume=True)
    first.finish()
    second.open(resume=True)
    second.close()


@pytest.mark.parametrize(
    "part",
    [
        {"meta": [1]},
        {"prediction": "7"},
        {"prediction": {}},
        {"runs": None},
        {"prediction": {"final_answer": None}},
        {"prediction": {"final_answer": "7", "run": "0"}},
        {"prediction": {"final_answer": "7", "correct": "no"}},
    ],
)
def test_what_stands_beside_a_tree_is_looked_at_too(tmp_path: Path, part: dict) -> None:
    path = write_jsonl(tmp_path / "o.jsonl", [{"react": {"0": NODE}}, {"react": {"0": NODE}} | part])
    with pytest.raises(UserError, match=rf'o\.jsonl:2: "{next(iter(part))}": .*expected'):
        list(read_tree_lines(path))


async def test_a_file_of_other_questions_is_refused(tmp_path: Path, interpreter: ForkInterpreter) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text(json.dumps({"question": "other", "meta": {"index": 0, "fingerprint": "f", "seed": 1}}) + "\n")
    with pytest.raises(UserError, match="another question"):
        await _run(path, interpreter, 2, 1)


def test_the_newest_unfinished_output_is_found(tmp_path: Path) -> None:
    line = json.dumps({"meta": {"fingerprint": "f"}}) + "\n"
    pattern = tmp_path / "q[1].jsonl.mcts.m"
    for stamp, text in (
        ("20260101000000", line),
        ("20260102000000", line * 3),
        ("20260103000000", line.replace("f", "g")),
    ):
        (tmp_path / f"{pattern.name}.{stamp}.jsonl").write_text(text)
    found = unfinished_output(pattern, "." + "[0-9]" * 14, "f", 3)
    assert found is not None and "20260101" in found.name
    assert unfinished_output(pattern, "." + "[0-9]" * 14, "f", 1) is None


def test_lines_end_where_json_ends_them_not_at_other_separators_or_marks(tmp_path: Path) -> None:
    path, text = tmp_path / "o.jsonl", "a\u2028b\u0085c\x0bd"
    row = {"prompt": text, "completion": text, "question": text}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n\r\n")
    assert list(read_objects(path)) == list(read_rows(path)) == [(f"{path}:1", row)]
    assert [question.text for question in read_questions(path)] == [text]
    path.rename(path.with_suffix(".json"))
    path.with_suffix(".json").write_text(json.dumps([row]), encoding="utf-8-sig")
    assert [question.text for question in read_questions(path.with_suffix(".json"))] == [text]


def test_odd_characters_survive_a_tree_file(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    writer = TreeWriter(path, "f")
    writer.open(resume=True)
    for index, text in enumerate(("naïve ∑\u2028", "lone \ud800 surrogate", "NUL \x00")):
        writer.append(index, {"question": text, "react": {"0": NODE}, "meta": {"index": index}})
    writer.finish()
    assert [record["question"] for _, record in read_tree_lines(path)] == [
        "naïve ∑\u2028", "lone \ud800 surrogate", "NUL \x00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "no root"),
        ({"0": NODE, "0.1.0": NODE}, "parent '0.1'"),
        ({"0": NODE, "0.x": NODE}, "tag '0.x'"),
        ({"0": {"value": 1}}, "'text' is missing"),
        ({"0": {"text": "", "value": "high"}}, "node 0"),
        ({"0": 5}, "expected an object"),
        ({"0": NODE, "0.1": NODE, "0.01": NODE}, "tag '0.01'"),
        ({"0": NODE, "0." + "9" * 5000: NODE}, "tag '0.99"),
        *(
            ({"0": NODE | {key: value}}, f"node 0: {key}: expected")
            for key, values in {
                "text": (5, ["a"]),
                "final_answer": (0, False, ["1"]),
                "value": (float("nan"), float("inf"), 10**400, True, None, "0.5"),
                "q_value": (float("nan"),),
                "visit_count": (-1, 1.5, float("inf"), "3"),
                "reward": ("1", float("nan"), True),
                "terminal": ("false", 0),
                "token_ids": ("12", [1.5], ["1"], [True], None),
            }.items()
            for value in values
        ),
    ],
)
def test_a_broken_tree_is_named_by_its_tag(record: dict, words: str) -> None:
    with pytest.raises(TreeError, match=words):
        from_record(record)

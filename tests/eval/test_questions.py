"""The one reader of questions: every file form, the usual column names, golds in every form."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from eval.data.questions import count_questions, read_answers, read_questions
from mcts.errors import UserError

ROWS = [
    {"question": 'A "b", c\nd?', "answer": "5", "id": "q1"},
    {"question": "E \u00e9?", "answer": "1/2", "id": "q2"},
]


def write(path: Path, rows: list[dict], form: str) -> Path:
    """`rows` in a form; with ".gz" at its end, packed."""
    path = path / f"q{form}"
    plain = form.removesuffix(".gz").lower()
    if plain in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if plain == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    elif plain in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    if form.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.mark.parametrize("form", [".jsonl", ".ndjson", ".json", ".JSON", ".csv", ".tsv", ".CSV"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_form_gives_the_same_questions(tmp_path: Path, form: str, packed: str) -> None:
    found = list(read_questions(write(tmp_path, ROWS, form + packed), need_answer=True))
    assert [(one.index, one.text, one.answers, one.item) for one in found] == [
        (at, row["question"], (row["answer"],), row) for at, row in enumerate(ROWS)
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.json", {"data": ROWS}),
        ("q.json", {"version": 1, "data": ROWS}),
        ("q.json", {"example": ROWS}),
        ("q.json", {"test": ROWS}),
        ("q.json", {"q1": {"question": ROWS[0]["question"], "answer": "5"}, "q2": {**ROWS[1]}}),
        ("q.json", {name: [row[name] for row in ROWS] for name in ROWS[0]}),
        ("q.jsonl", ROWS),
    ],
)
def test_documents_of_every_shape_are_read(tmp_path: Path, name: str, content: object) -> None:
    (tmp_path / name).write_text(json.dumps(content, indent=1), encoding="utf-8-sig")
    found = list(read_questions(tmp_path / name))
    assert [(one.text, one.answers, one.item["id"]) for one in found] == [
        (row["question"], (row["answer"],), row["id"]) for row in ROWS
    ]


def test_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS), encoding="utf-8")
    assert [(one.text, one.where) for one in read_questions(path)] == [
        (ROWS[0]["question"], f"{path}:1"), (ROWS[1]["question"], f"{path}:3"),
    ]  # fmt: skip


def test_a_semicolon_may_separate_the_columns(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question;answer\nHow much is 1,5 + 1,5?;3\n", encoding="utf-8")
    (found,) = read_questions(tmp_path / "q.csv")
    assert (found.text, found.answers) == ("How much is 1,5 + 1,5?", ("3",))


@pytest.mark.parametrize(
    ("row", "text", "answers"),
    [
        ({"problem": "Q?", "solution": "2 + 3 = \\boxed{5}, so \\boxed{\\frac{1}{2}}."}, "Q?", (r"\frac{1}{2}",)),
        ({"problem": "Q?", "answer": "5", "solution": "\\boxed{6}"}, "Q?", ("5",)),
        ({"Problem": "Q?", "Final Answer": "5"}, "Q?", ("5",)),
        ({"prompt": "Q?", "target": 5.0}, "Q?", ("5",)),
        ({"input": "Q?", "target": -5}, "Q?", ("-5",)),
        ({"query": "Q?", "gold": ["5", "five"]}, "Q?", ("5", "five")),
        ({"question": "Q?", "ground_truth": "5"}, "Q?", ("5",)),
        ({"question": "Q?", "expected_answer": "5", "answer": None}, "Q?", ("5",)),
        ({"question": "Q?", "answer": "3 + 2 = <<3+2=5>>5 left.\n#### 5"}, "Q?", ("5",)),
        ({"question": "Q?", "answer": "So \\boxed{5}."}, "Q?", ("5",)),
        ({"question": "Q?", "solution": "It is five."}, "Q?", ()),
        ({"question": "Q?"}, "Q?", ()),
        ({"Body": "Tom has 3", "Question": "How many?", "Answer": 3.0}, "Tom has 3. How many?", ("3",)),
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path: Path, row: dict, text: str, answers: tuple) -> None:
    (found,) = read_questions(write(tmp_path, [row], ".jsonl"))
    assert (found.text, found.answers, found.item["question"]) == (text, answers, text)
    assert read_answers(json.loads(json.dumps(found.item)), "saved") == answers  # a saved record keeps the golds
    kept = {key: value for key, value in row.items() if key not in ("answer", "Question")}
    assert kept.items() <= found.item.items()


def test_a_worked_solution_under_answer_stays_beside_the_gold(tmp_path: Path) -> None:
    (found,) = read_questions(write(tmp_path, [{"question": "Q?", "answer": "3 + 2\n#### 5"}], ".jsonl"))
    assert found.item == {"question": "Q?", "answer": "5", "solution": "3 + 2\n#### 5"}


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, [{"a": "Q?", "b": "5", "question": "other", "answer": "6"}], ".csv")
    (found,) = read_questions(path, question_key="a", answer_key="b")
    assert (found.text, found.answers) == ("Q?", ("5",))
    with pytest.raises(UserError, match=r":2: no column 'answers'; did you mean 'answer'"):
        count_questions(path, answer_key="answers")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.csv", "question,answer\nQ?,5,6\n", [":2", "expected 2 cells", "found 3"]),
        ("q.csv", 'question,answer\n"Q?,5\n', ["not a table"]),
        ("q.csv", "a,b\n1,2\n", [":2", '"question" is missing', "it has a, b"]),
        ("q.csv", "", ["no question in it"]),
        ("q.jsonl", '{"question": "a", "answer": true}\n', [":1", '"answer"', "True"]),
        ("q.jsonl", '{"question": "a", "answer": ""}\n', [":1", '"answer"']),
        ("q.jsonl", '{"question": "a", "answer": []}\n', [":1", '"answer"']),
        ("q.json", '{"questions": []}', ["expected a list"]),
        ("q.txt", "a", ["'.txt'".strip("'"), "expected .jsonl"]),
        ("q", "a", ["(none)", "expected .jsonl"]),
        ("q.jsonl.gz", "not packed", ["cannot be unpacked"]),
        ("q.parquet", "PAR1", ["arquet"]),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: str, words: list[str]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        count_questions(tmp_path / name)
    message = str(caught.value)
    assert all(word in message for word in [str(tmp_path / name), *words]) and "\n" not in message, message


def test_a_file_that_breaks_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS * 200, ".jsonl.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be unpacked"):
        count_questions(path)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_parquet_is_read_where_its_package_is_installed(tmp_path: Path, packed: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "q.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    if packed:
        path = path.with_suffix(".parquet.gz")
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
    assert [one.item for one in read_questions(path)] == ROWS


def test_gsm8ks_own_file_has_the_published_golds(reference: Path) -> None:
    found = list(read_questions(reference / "data/gsm8k/test.jsonl", need_answer=True))
    assert len(found) == 1319 and found[0].answers == ("18",)
    assert all(one.answers[0].replace(",", "").lstrip("-").isdecimal() for one in found)

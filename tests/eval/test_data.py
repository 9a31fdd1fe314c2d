"""Data sets by name and by file."""

import json

import pytest

from eval.data.datasets import load
from mcts.errors import UserError

# rows, first accepted answers
KNOWN = {
    "gsm8k": (1319, "18"),
    "math": (5000, "2"),
    "gsm-hard": (1319, "-9867630"),
    "svamp": (1000, "145"),
    "asdiv": (2215, "9"),
    "mawps": (2065, "43"),
    "singleeq": (508, "43"),
    "singleop": (562, "14"),
    "addsub": (395, "43"),
    "multiarith": (600, "39"),
    "tabmwp": (1000, "84"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_sets_have_their_published_sizes_and_an_answer_for_every_question(reference, name):
    items = load(name, reference / "data")
    assert (len(items), items[0].answers[0]) == KNOWN[name]
    assert all(item.question and item.answers and all(item.answers) for item in items)


def test_table_questions_carry_their_table(reference):
    question = load("tabmwp", reference / "data")[0].question
    assert question.startswith('Read the following table regarding "Coin collections" and answer a question:\nName | ')


def test_svamp_bodies_end_with_a_full_stop(reference):
    assert "93 groups. How big" in load("svamp", reference / "data")[0].question


def test_damaged_math_golds_are_corrected_on_request(reference):
    plain, corrected = (load("math", reference / "data", correct_golds=choice) for choice in (False, True))
    changed = {
        item.index: item.answers for item, old in zip(corrected, plain, strict=True) if item.answers != old.answers
    }
    assert changed[414] == ("-2, 1",)  # all solutions, not the last
    assert changed[333] == ("-3", "3")  # either is accepted
    assert changed[4060] == ("6",)
    assert len(changed) <= 14


def test_any_file_by_its_columns(tmp_path):
    rows = [{"q": "1+1?", "a": 2.0}, {"q": "x?", "a": ["1", "one"]}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.json").write_text(json.dumps({"example": rows}))
    for file in ("own.jsonl", "own.json"):
        items = load(str(tmp_path / file), question="q", answer="a")
        assert [item.answers for item in items] == [("2",), ("1", "one")]


def test_parquet_by_its_columns(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"question": ["1+1?"], "answer": ["2"]}), tmp_path / "own.parquet")
    assert load(str(tmp_path / "own.parquet"))[0].answers == ("2",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no such file"),
        ("bad.jsonl", "{", ":1: not valid JSON"),
        ("bad.jsonl", "\n{", ":2: not valid JSON"),
        ("deep.jsonl", "[" * 100_000, ":1: cannot be read as JSON"),
        ("list.jsonl", "\ufeff[1]", ":1: item 0: expected an object"),
        ("list.json", "\ufeff[1]", "item 0: expected an object"),
        ("number.json", "1", "expected a list"),
        ("columns.jsonl", '{"x": 1}', "it has x"),
        ("own.csv", "a,b", "no question in it"),
        ("own.txt", "a,b", "expected .jsonl"),
        ("gsm8", None, "did you mean 'gsm8k'"),
    ],
)
def test_bad_files_are_refused_with_what_is_wrong(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / name) if "." in name else name)

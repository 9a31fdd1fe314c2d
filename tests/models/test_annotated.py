"""Worked solutions with calculator annotations become steps whose programs really print what the annotations say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from arbor.commands.annotated import command
from mcts.errors import UserError
from models.training.annotated import Draft, agrees, drafts
from tests.conftest import write_jsonl

CONFIG = "configs/smollm2/greedy.yaml"
TRUE = {
    "question": "A crate holds 4 rows of 6 jars. Half of them are sold at $1,50 each. What is earned?",
    "answer": "There are 4 x 6 = <<4*6=24>>24 jars in a crate.\n"
    "Half of them is 24/2 = <<24/2=12>>12 jars, and they bring "
    "12 * 1.5 = $<<12*1.5=18>>18.\n#### 18",
}
FALSE = {**TRUE, "answer": TRUE["answer"].replace("=24>>24", "=25>>25")}
OTHER_END = {**TRUE, "answer": TRUE["answer"].replace("#### 18", "#### 19")}
BARE = {**TRUE, "answer": "It is clear.\n#### 18"}
HOSTILE = {**TRUE, "answer": "It is <<__import__('os').getpid()=1>>1.\n#### 1"}


def convert(tmp_path: Path, rows: list[dict], *words: str) -> tuple[list[dict], dict[str, int]]:
    source, output = write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "steps.jsonl"
    arguments = ["--config", CONFIG, "--rows", str(source), "--output", str(output), *words]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    return [json.loads(line) for line in output.open(encoding="utf-8")], json.loads(result.stderr)


def test_only_rows_whose_programs_hold_are_kept(tmp_path: Path) -> None:
    rows, counts = convert(tmp_path, [FALSE, TRUE, OTHER_END, BARE, HOSTILE, TRUE], "--skip", "1")
    assert counts == {
        "kept": 2,
        "the last program does not print the answer": 1,
        "without annotation or answer": 1,
        "a program prints another number than its annotation": 1,
    }
    first = rows[0]
    assert first["answer"] == "18" and first["question"] == TRUE["question"] and rows[1] == first
    assert first["steps"] == [
        "There are 4 x 6 jars in a crate.\n```python\n4*6\n```\n```output\n24\n```",
        "Half of them is 24/2 jars, and\n```python\n24/2\n```\n```output\n12.0\n```",
        "they bring 12 * 1.5.\n```python\n12*1.5\n```\n```output\n18.0\n```",
        "The answer is 18.",
    ]


def test_rows_of_another_form_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:1: expected question and answer"):
        convert(tmp_path, [{"question": "Why?"}])
    with pytest.raises(UserError, match="runs no fenced programs"):
        convert(tmp_path / "..", [TRUE], "--set", "step_cut=paragraph")


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        ("Hm.\nIt is 20% of 50: <<50*20%=10>>10 m", [Draft("Hm. It is 20% of 50: 50*20% m", "50*20/100", "10")]),
        ("2*3=<<2*3=6>>6 + 4 = <<6+4=10>>10", [Draft("2*3", "2*3", "6"), Draft("6 + 4", "6+4", "10")]),
        ("He pays $1,200 ÷ 3 = $<<1,200÷3=400>>400 a month.", [Draft("He pays $1,200 ÷ 3 a month.", "1200/3", "400")]),
    ],
)  # fmt: skip
def test_each_annotation_is_a_step(solution: str, expected: list[Draft]) -> None:
    assert drafts(solution) == expected


@pytest.mark.parametrize(
    ("printed", "claimed", "same"),
    [("24.0", "24", True), ("33.333333333333336", "33.33", True), ("33.4", "33.33", False), ("24.5", "24", False),
     ("0.1", ".1", True), ("1200", "$1,200", True), ("", "1", False), ("1", "one", False)],
)  # fmt: skip
def test_a_claim_holds_to_its_last_decimal(printed: str, claimed: str, same: bool) -> None:
    assert agrees(printed, claimed) is same


TEMPLATES = {
    "names": ["Ada", "Bo"],
    "things": ["jars"],
    "questions": [
        "{n} shares {p} {o} among {q}. How many each? | Each gets <<{p}/{q}>> {o}.",
        "{n} has {big} dollars, pays {small}, earns {b}. How many now? | Left are <<{big}-{small}>>.\nNow <<{1}+{b}>>.",
    ],
}


def templates(tmp_path: Path, **keys: object) -> list[str]:
    (tmp_path / "templates.yaml").write_text(json.dumps(TEMPLATES | keys), encoding="utf-8")
    return ["--templates", str(tmp_path / "templates.yaml"), "--count", "40", "--seed", "3"]


def test_rows_made_of_templates_follow_and_their_programs_hold(tmp_path: Path) -> None:
    rows, counts = convert(tmp_path, [TRUE], *templates(tmp_path))
    assert counts == {"kept": 41} and len({row["question"] for row in rows}) > 30
    for at, row in enumerate(rows[1:]):
        numbers = re.findall(r"\d+", row["question"])
        shared, steps = at % 2 == 0, row["steps"]
        assert len(steps) == (2 if shared else 3) and ("jars" in row["question"]) is shared
        if len(numbers) == (2 if shared else 3):  # none is a word
            p, q, *_ = map(int, numbers)
            assert int(row["answer"]) == (p // q if shared else p - q + int(numbers[2]))
        assert steps[-1] == f"The answer is {row['answer']}."


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("no solution", "question | solution"),
        ("{x} | <<{x}+{a}>>", "known slots"),
        ("{n} | no program", "question | solution"),
        ("{n} | <<{a}+{b}+{a}>>", "question | solution"),
        ("{n} | <<{small}-{big}>>", "positive and whole"),
    ],
)
def test_a_template_that_makes_no_question_is_named(tmp_path: Path, question: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"templates\.yaml, template 1: .*{re.escape(said)}"):
        convert(tmp_path, [], *templates(tmp_path, questions=[question]))


def test_a_file_of_other_keys_is_no_file_of_templates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the keys names, things and questions"):
        convert(tmp_path, [], *templates(tmp_path, names=1))

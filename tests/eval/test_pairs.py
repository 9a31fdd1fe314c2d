"""The labelled pairs: ours by kind, and the collected ones where the reference folder is present."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from eval.grading.grader import grade

HERE = Path(__file__).parent
REFERENCE = HERE.parents[2] / "shared" / "reference" / "pairs.jsonl"


def _by_kind() -> dict[str, list[dict]]:
    kinds = defaultdict(list)
    for line in (HERE / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kinds[row["kind"]].append(row)
    return kinds


PAIRS = _by_kind()


def test_the_table_holds_several_hundred_pairs_both_ways():
    rows = [row for rows in PAIRS.values() for row in rows]
    assert sum(row["equal"] is True for row in rows) >= 300
    assert sum(row["equal"] is False for row in rows) >= 200


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_of_one_kind_are_graded_as_labelled(kind):
    wrong = []
    for row in PAIRS[kind]:
        found = grade(row["gold"], row["prediction"])
        if found.equal is not row["equal"]:
            wrong.append((row["gold"], row["prediction"], row["equal"], found))
    assert not wrong


def test_strict_accepts_nothing_that_default_rejects():
    wrong = [
        (row["gold"], row["prediction"])
        for rows in PAIRS.values()
        for row in rows
        if row["equal"] is False and grade(row["gold"], row["prediction"], "strict").equal
    ]
    assert not wrong


def test_collected_pairs_meet_the_bar_without_a_false_accept():
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is not here")
    rows = [json.loads(line) for line in REFERENCE.read_text(encoding="utf-8").splitlines()]
    grades = [(row["equal"], grade(row["gold"], row["prediction"]).equal) for row in rows]
    assert not [label for label, found in grades if found and not label]
    assert sum(label is found for label, found in grades) >= 0.97 * len(rows)

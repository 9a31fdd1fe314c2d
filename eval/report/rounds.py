"""What the rounds of a run gave: accuracy, cost and paired tests, as report.md and report.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report.columns import ROUNDS, columns
from eval.report.scores import mcnemar
from eval.report.table import markdown_table, share
from mcts.jsonl import write_text_whole
from mcts.trees.file import read_tree_lines


@dataclass(frozen=True)
class Row:
    """One method of one round. right: by question; costs: means a question; seconds: of the whole command
    (a reranked row's are those of the decision; its trees are another row's)."""

    round: str
    method: str
    right: dict[int, bool]
    costs: dict[str, float]
    seconds: float

    def cells(self) -> list[str]:
        n, right = len(self.right), sum(self.right.values())
        costs = [one.form.format(self.costs[key]) if key in self.costs else "–" for key, one in columns(ROUNDS).items()]
        accuracy = "{} ({})".format(*share(right, n))
        return [self.round, self.method, str(n), accuracy, *costs, f"{self.seconds / n:.2f}"]


def stage_seconds(folder: Path, name: str) -> float:
    """How long a finished stage took (its last, finishing run)."""
    return float(json.loads((folder / f"{name}.done").read_text(encoding="utf-8"))["seconds"])


def read_row(name: str, path: Path) -> Row:
    records = [record for _, record in read_tree_lines(path)]
    right = {one["meta"]["index"]: (one["prediction"] or {}).get("correct") is True for one in records}
    figures = {key: column.figure(records) for key, column in columns(ROUNDS).items()}
    costs = {key: figure for key, figure in figures.items() if figure is not None}
    return Row(name, path.stem, right, costs, stage_seconds(path.parent, path.stem))


def read_rows(output: Path, rounds: Sequence[str]) -> list[Row]:
    """The finished evaluations of all rounds, in order."""
    done = [(name, one) for name in rounds for one in sorted((output / name / "evaluate").glob("*.done"))]
    paths = [(name, one.with_suffix(".jsonl")) for name, one in done if "." not in one.stem]
    return [read_row(name, path) for name, path in paths]


def paired(rows: Sequence[Row]) -> list[list[str]]:
    """Every method of a later round against the same method of the first round that has it."""
    first: dict[str, Row] = {}
    tests = []
    for row in rows:
        if (before := first.setdefault(row.method, row)) is not row:
            tests.append([f"{row.method}: {row.round} against {before.round}", *compare(row, before)])
    return tests


def compare(row: Row, other: Row) -> list[str]:
    """n, questions that only one of the two solves, and the p-value of McNemar's exact test."""
    common = sorted(row.right.keys() & other.right.keys())
    gained, lost, p = mcnemar([row.right[i] for i in common], [other.right[i] for i in common])
    return [str(len(common)), str(gained), str(lost), f"{p:.2g}"]


def cards(output: Path, rounds: Sequence[str]) -> list[list[str]]:
    """What each round learned from, and how long its stages took."""
    found = []
    for name in rounds:
        card, folder = output / name / "examples.card.json", output / name
        counts: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))["counts"] if card.exists() else {}
        questions = counts.get("questions", 0)
        shares = [
            f"{counts.get(key, 0) / questions:.2f}" if questions else "–"
            for key in ("questions with a correct path", "distinct correct paths", "distinct wrong paths")
        ]
        amounts = [str(counts.get(key, "–")) for key in ("correct paths", "wrong paths", "pairs")]
        stages = [
            f"{stage} {stage_seconds(folder, stage):.0f}"
            for stage in ("search", "train")
            if (folder / f"{stage}.done").exists()
        ]
        found.append([name, str(questions or "–"), *shares, *amounts, ", ".join(stages)])
    return found


def siblings(output: Path, rounds: Sequence[str]) -> list[list[str]]:
    """How well each round's value head ranks siblings, on the same trees."""
    found = []
    for name in rounds:
        for path in sorted((output / name / "evaluate").glob("*.siblings.json")):
            kinds = json.loads(path.read_text(encoding="utf-8"))
            aucs = [f"{one['auc']:.3f} ({one['pairs']})" if one["pairs"] else "–" for one in kinds.values()]
            found.append([name, path.name.partition(".")[0], *aucs])
    return found


def write_report(output: Path, rounds: Sequence[str]) -> None:
    """Writes report.md and report.json about what is finished so far."""
    rows = read_rows(output, rounds)
    results = markdown_table(
        ("round", "method", "n", "accuracy % (95 %)", *(one.title for one in columns(ROUNDS).values()), "s"),
        [row.cells() for row in rows],
    )
    tests = markdown_table(("method and rounds", "n", "gained", "lost", "p (McNemar, exact)"), paired(rows))
    made = markdown_table(
        ("round", "questions", "with a correct path", "distinct correct", "distinct wrong", "correct taken",
         "wrong taken", "pairs", "seconds"), cards(output, rounds),
    )  # fmt: skip
    ranked = markdown_table(
        ("round", "trees", "AUC of final answers (pairs)", "of inner steps", "of all siblings"),
        siblings(output, rounds),
    )
    tables = "\n\n".join((results, tests, made, ranked))
    text = f"# Rounds of {output.name}\n\nCosts are means a question.\n\n{tables}\n"
    data = [{**vars(row), "accuracy": sum(row.right.values()) / len(row.right)} for row in rows]
    write_text_whole(output / "report.md", text)
    write_text_whole(output / "report.json", json.dumps(data, indent=1) + "\n")

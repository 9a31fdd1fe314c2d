"""Two or more result files on the same questions: paired accuracy with an exact test, cost, groups, what changed."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from eval.grading.grader import grade_all
from eval.report.columns import COST, columns
from eval.report.methods import GROUPS
from eval.report.rows import Row
from eval.report.scores import Z95, accuracy, mcnemar
from eval.report.table import markdown_table, text_table
from mcts.errors import UserError

Json = dict[str, Any]


@dataclass(frozen=True)
class PairedTest:
    """Right answers of two searches to the same `n` questions.

    p: of McNemar's exact test, two-sided. difference: of the accuracies, the second's minus the first's, in points of
    per cent, with its 95 % interval (normal approximation over the questions).
    """

    n: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    difference: float
    low: float
    high: float


def paired_test(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    n = len(first)
    only_first, only_second, p = mcnemar(first, second)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    mean = (only_second - only_first) / n if n else 0.0
    spread = sqrt(((only_first + only_second) / n - mean**2) / (n - 1)) if n > 1 else 1.0
    low, high = max(-1.0, mean - Z95 * spread), min(1.0, mean + Z95 * spread)
    neither = n - both - only_first - only_second
    return PairedTest(n, both, only_first, only_second, neither, p, 100 * mean, 100 * low, 100 * high)


def pair_up(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The places of the same keys in two lists, in the order of the first. Of a key that occurs several times, the
    first occurrences belong together, then the second ones."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, key in reversed(list(enumerate(second))):
        places[key].append(place)
    return [(place, places[key].pop()) for place, key in enumerate(first) if places.get(key)]


def compare(read: Mapping[str, Sequence[Row]], policy: str) -> Json:
    """Every file, and each later one against the first. read: file → its rows. Raises UserError."""
    names = list(read)
    if len(names) < 2:
        raise UserError(f"{', '.join(names) or 'no file'}: expected two files or more to compare")
    verdicts = {name: _grade(read[name], policy) for name in names}
    files = []
    for name in names:
        records = [row.fields for row in read[name]]
        costs = {key: column.figure(records) for key, column in columns(COST).items()}
        files.append({"name": name, **asdict(accuracy(verdicts[name])), "cost_per_question": costs})
    first = names[0]
    pairs = [{"first": first, "second": name, **_pair((first, name), read, verdicts)} for name in names[1:]]
    return {"policy": policy, "files": files, "pairs": pairs}


def _grade(rows: Sequence[Row], policy: str) -> list[bool | None]:
    return [one.equal for one in grade_all(((row.golds, row.prediction) for row in rows), policy)]


def _pair(
    names: tuple[str, str], read: Mapping[str, Sequence[Row]], verdicts: Mapping[str, Sequence[bool | None]]
) -> Json:
    (first, second), (before, after) = (read[name] for name in names), (verdicts[name] for name in names)
    common = pair_up(*([row.fields.get("question") for row in rows] for rows in (first, second)))
    if not common:
        raise UserError(f"{names[0]} and {names[1]} have no question in common; expected results of one question file")
    changed = [
        {
            "question": str(first[i].fields.get("question")),
            "answer": " | ".join(first[i].golds),
            "first": first[i].prediction,
            "second": second[j].prediction,
            "gained": after[j] is True,
        }
        for i, j in common
        if (before[i] is True) != (after[j] is True)
    ]

    def test(where: Callable[[Row], bool]) -> Json:
        chosen = [(before[i] is True, after[j] is True) for i, j in common if where(first[i])]
        return asdict(paired_test([a for a, _ in chosen], [b for _, b in chosen]))

    rows = [first[i] for i, _ in common]
    return {**test(lambda row: True), "by": _by_group(rows, test), "changed": changed}


def _by_group(rows: Sequence[Row], test: Callable[[Callable[[Row], bool]], Json]) -> Json:
    found: Json = {}
    for group in GROUPS:
        if all(group in row.fields for row in rows):
            values = sorted({str(row.fields[group]) for row in rows})
            found[group] = {
                value: test(lambda row, value=value, group=group: str(row.fields[group]) == value)  # type: ignore[misc]
                for value in values
            }
    return found


# --- forms


def as_text(result: Json, table: Callable[..., str] = text_table, head: str = "") -> str:
    """Tables for people. table: how one is written (`text_table`, `markdown_table`). head: in front of a title."""
    costs = [key for key in columns(COST) if any(one["cost_per_question"][key] is not None for one in result["files"])]
    rows = [
        [one["name"], str(one["n"]), f"{one['percent']:.2f}", f"{one['low']:.2f}–{one['high']:.2f}",
         str(one["undecided"]), *(_cell(one["cost_per_question"][cost]) for cost in costs)]
        for one in result["files"]
    ]  # fmt: skip
    titles = [columns(COST)[cost].title for cost in costs]
    parts = [table(("file", "n", "%", "95 %", "undecided", *titles), rows)]
    for pair in result["pairs"]:
        parts.append(f"{head}{pair['second']} against {pair['first']}")
        groups = {"all": pair, **{f"{name} {key}": one for name, by in pair["by"].items() for key, one in by.items()}}
        parts.append(table(_PAIRED, [[name, *_cells(one)] for name, one in groups.items()]))
        if pair["changed"]:
            changes = [
                ["gained" if one["gained"] else "lost", *(_short(one[key]) for key in ("answer", "first", "second")),
                 _short(one["question"], 60)] for one in pair["changed"]
            ]  # fmt: skip
            parts.append(table(("", "answer", "first", "second", "question"), changes, **_left(table)))
    return "\n\n".join(parts)


_PAIRED = ("", "n", "both", "only first", "only second", "neither", "difference", "95 %", "p (McNemar, exact)")


def as_markdown(result: Json) -> str:
    return as_text(result, markdown_table, "## ")


def as_json(result: Json) -> str:
    return json.dumps(result, indent=1, ensure_ascii=False)


def as_csv(result: Json) -> str:
    """One line a paired test: all questions of a pair of files, then by group."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    figures = list(PairedTest.__dataclass_fields__)
    writer.writerow(("first", "second", "group", "value", *figures))
    for pair in result["pairs"]:
        tests = [("", "", pair), *((name, key, one) for name, by in pair["by"].items() for key, one in by.items())]
        for name, key, one in tests:
            writer.writerow((pair["first"], pair["second"], name, key, *(one[figure] for figure in figures)))
    return target.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Json], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
    "markdown": as_markdown,
}


def _cells(one: Mapping[str, Any]) -> list[str]:
    counts = [str(one[key]) for key in ("n", "both", "only_first", "only_second", "neither")]
    return [*counts, f"{one['difference']:+.2f}", f"{one['low']:+.1f} to {one['high']:+.1f}", f"{one['p']:.3g}"]


def _cell(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.1f}"


def _short(text: str, length: int = 24) -> str:
    """A text on one line, as a cell of a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _left(table: Callable[..., str]) -> dict[str, int]:
    return {"left": 5} if table is text_table else {}

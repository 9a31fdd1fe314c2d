"""The report of a run: its figures of merit, configuration and failures, as one HTML file and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from eval.grading.grader import grade
from eval.report.columns import COST, Record, columns
from eval.report.figures import FIGURES, draw
from eval.report.methods import GROUPS
from eval.report.scores import accuracy, by_group
from eval.report.table import markdown_table
from mcts.errors import UserError
from mcts.question import Question
from mcts.search.offline import top_answer
from mcts.trees.file import read_tree_lines
from mcts.trees.record import TreeError

SHOWN = 100  # questions without a right answer that are listed


@dataclass(frozen=True)
class Miss:
    """A question without a right answer. place: of its line in the file."""

    place: int
    question: str
    gold: str
    prediction: str
    why: str


@dataclass
class Run:
    """What a report says of one tree file."""

    name: str
    path: Path
    verdicts: list[bool | None] = field(default_factory=list)
    metas: list[Record] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    misses: list[Miss] = field(default_factory=list)
    unanswered: Counter[str] = field(default_factory=Counter)
    failed_steps: Counter[str] = field(default_factory=Counter)
    questions: int = 0

    def cells(self) -> list[str]:
        if not self.verdicts:
            return [self.name, str(self.questions), "–", "–", "–", *self._costs()]
        score = accuracy(self.verdicts)
        shown = [f"{score.percent:.2f}", f"{score.low:.1f}–{score.high:.1f}", str(score.undecided)]
        return [self.name, str(self.questions), *shown, *self._costs()]

    def _costs(self) -> list[str]:
        figures = [column.figure(self.metas) for column in columns(COST).values()]
        return ["–" if one is None else f"{one:.0f}" if one >= 100 else f"{one:.2f}" for one in figures]


def read_run(path: Path) -> Run:
    """Raises UserError."""
    run = Run(path.stem, path)
    for place, (where, record) in enumerate(read_tree_lines(path)):
        _add(run, place, where, record)
    return run


def _add(run: Run, place: int, where: str, record: dict[str, Any]) -> None:
    run.questions += 1
    meta = record.get("meta") or {}
    run.metas.append({"meta": meta})
    run.failed_steps.update({str(key): count for key, count in (meta.get("failures") or {}).items()})
    try:
        prediction = top_answer(record)
    except TreeError as error:
        raise UserError(f"{where}: {error}") from None
    if prediction is None:
        run.unanswered[str(meta.get("no_answer") or "not said")] += 1
    golds = Question(place, record, where).answers
    if not golds:
        return
    verdict = _verdict(record, golds, prediction)
    run.verdicts.append(verdict)
    for group in GROUPS:
        run.groups.setdefault(group, []).append(str(record.get(group, "")))
    if verdict is not True:
        why = "undecided" if verdict is None else "wrong" if prediction is not None else "no answer"
        run.misses.append(Miss(place, str(record.get("question", "")), " | ".join(golds), prediction or "", why))


def _verdict(record: Mapping[str, Any], golds: tuple[str, ...], prediction: str | None) -> bool | None:
    """As the search recorded it, else as the grader finds; no answer is a wrong one."""
    if prediction is None:
        return False
    recorded = record.get("prediction") or {}
    if "correct" in recorded:
        verdict: bool | None = recorded["correct"]
        return verdict
    return grade(list(golds), prediction).equal


# --- what stands in a report


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Table:
    """links: of each row, where its first cell leads, or ""."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """PNG."""

    title: str
    png: bytes


Block = Heading | Paragraph | Table | Picture


class Link(Protocol):
    def __call__(self, path: Path, place: int) -> str: ...


def report_blocks(paths: Sequence[Path], link: Link, *, figures: bool = True) -> list[Block]:
    """Everything a report says of tree files. link: where a question's tree is shown, or "". Raises UserError."""
    runs = [read_run(path) for path in paths]
    titles = [column.title for column in columns(COST).values()]
    blocks: list[Block] = [
        Heading("Accuracy and cost"),
        Paragraph("Costs are means a question; the interval is Wilson's at 95 %; an undecided answer is never right."),
        Table(("file", "questions", "%", "95 %", "undecided", *titles), [run.cells() for run in runs]),
    ]
    for run in runs:
        blocks += [*_groups(run), *_failures(run)]
    if figures:
        blocks += _figures(paths)
    for run in runs:
        blocks += [*_setting(run), *_misses(run, link)]
    return blocks


def _groups(run: Run) -> Iterator[Block]:
    for name, keys in run.groups.items():
        if any(keys):
            scores = by_group(keys, run.verdicts)
            rows = [
                [key, str(one.n), f"{one.percent:.2f}", f"{one.low:.1f}–{one.high:.1f}"] for key, one in scores.items()
            ]
            yield Heading(f"{run.name}: by {name}")
            yield Table((name, "n", "%", "95 %"), rows)


def _failures(run: Run) -> Iterator[Block]:
    for title, counts in (("questions without an answer", run.unanswered), ("failed steps", run.failed_steps)):
        if counts:
            yield Heading(f"{run.name}: {title}, by reason")
            yield Table(("reason", "count"), [[reason, str(count)] for reason, count in counts.most_common()])


def _figures(paths: Sequence[Path]) -> Iterator[Block]:
    """Those that the files have the numbers for."""
    yield Heading("Figures")
    for name, figure in FIGURES.items():
        if name != "rounds":
            try:
                numbers = figure.numbers(paths)
            except UserError:
                continue
            target = io.BytesIO()
            draw(figure, numbers, target)
            yield Picture(figure.title, target.getvalue())


def _setting(run: Run) -> Iterator[Block]:
    meta = run.metas[0]["meta"]
    rows = [[key, _said(meta[key])] for key in ("seed", "fingerprint", "model", "versions") if key in meta]
    rows += [[f"config: {key}", _said(value)] for key, value in sorted((meta.get("config") or {}).items())]
    if rows:
        yield Heading(f"{run.name}: configuration and versions")
        yield Paragraph("Keys that differ from their defaults.")
        yield Table(("key", "value"), rows)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return repr(value) if isinstance(value, str) and value.strip() != value else str(value)


def _misses(run: Run, link: Link) -> Iterator[Block]:
    if run.misses:
        yield Heading(f"{run.name}: questions without a right answer")
        if len(run.misses) > SHOWN:
            yield Paragraph(f"The first {SHOWN} of {len(run.misses)}.")
        shown = run.misses[:SHOWN]
        rows = [[str(one.place + 1), one.why, one.gold, one.prediction, one.question] for one in shown]
        links = [link(run.path, one.place) for one in shown]
        yield Table(("line", "", "answer", "predicted", "question"), rows, links)


# --- Markdown and HTML


def as_markdown(title: str, blocks: Sequence[Block], pictures: str) -> str:
    """pictures: the folder of the pictures, as the report names it; they are numbered in their order."""
    parts, at = [f"# {_plain(title)}"], 0
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {_plain(text)}")
            case Paragraph(text):
                parts.append(_plain(text))
            case Table(head, rows, links):
                cells = [[_plain(cell)[:300] for cell in row] for row in rows]
                for row, target in zip(cells, links, strict=False):
                    row[0] = f"[{row[0]}]({target})" if target else row[0]
                parts.append(markdown_table(head, cells))
            case Picture(text, _):
                at += 1
                parts.append(f"![{_plain(text)}]({quote(pictures)}/{at}.png)")
    return "\n\n".join(parts) + "\n"


# What turns the direction of a text, or is not drawn.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def _shown(text: str) -> str:
    """A text whose hidden characters stand there as their codes."""
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|$~])")


def _plain(text: str) -> str:
    """A text on one line that Markdown reads as a text."""
    return _MARKUP.sub(r"\\\1", " ".join(_shown(text).split()))


STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid #8886; padding: 3px 10px; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; min-width: 3em; }
img { max-width: 100%; background: white; border-radius: 6px; margin: 6px 6px 6px 0; }
h2 { font-size: 17px; margin-top: 2em; }
"""


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One file without outside references. Every text is escaped and isolated from the direction of its neighbours."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'sha256-{style}'"
    body = "\n".join(map(_html, blocks))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<meta name="viewport" '
        f'content="width=device-width">\n<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{_bdi(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{_bdi(text)}</h2>"
        case Paragraph(text):
            return f"<p>{_bdi(text)}</p>"
        case Picture(text, png):
            data = base64.b64encode(png).decode()
            return f'<img alt="{_escaped(text)}" src="data:image/png;base64,{data}">'
        case Table(head, rows, links):
            top = "".join(f"<th>{_bdi(cell)}</th>" for cell in head)
            lines = []
            for at, row in enumerate(rows):
                cells = [_bdi(cell) for cell in row]
                if at < len(links) and links[at]:
                    cells[0] = f'<a href="{html.escape(links[at])}">{cells[0]}</a>'
                lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
            return f"<table><thead><tr>{top}</tr></thead><tbody>\n" + "\n".join(lines) + "\n</tbody></table>"


def _bdi(text: str) -> str:
    return f"<bdi>{_escaped(text)}</bdi>"


def _escaped(text: str) -> str:
    return html.escape(_shown(text))

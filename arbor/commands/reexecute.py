"""Run every program of ToRA-style output files again, compare what it prints with the record, and grade again.

arbor reexecute FILE... [--differences differences.jsonl] [--json]

Each program runs in a fresh state, as it did when the files were made. Differences are sorted into classes; the file
`--differences` lists each of them.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from arbor.assembly import check_output
from arbor.commands import _options as options
from arbor.commands._progress import Progress
from eval.grading.grader import grade, grade_all
from eval.grading.tora import extract_tora
from eval.report.rows import tora_fault
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.jsonl import read_objects, write_lines

_ROUND = re.compile(
    r"```python[^\n]*\n(?P<code>(?:(?!```python).)*?)\n```\s*\n?```output\n(?P<output>.*?)\n?```", re.DOTALL
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_ERROR = re.compile(r"^([A-Za-z_.]*(?:Error|Exception|Exit|Interrupt|NotImplemented)\w*|Timeout Error)\b")


@dataclass(frozen=True)
class Program:
    """A program of sample `sample` of row `row`, what it printed when the file was made, and what it prints now."""

    row: int
    sample: int
    code: str
    recorded: str
    printed: str = ""
    seconds: float = 0.0

    @property
    def difference(self) -> str:
        return next(name for name, holds in CLASSES.items() if holds(self.recorded, self.printed))


# --- why outputs differ


def _error(text: str) -> str:
    found = _ERROR.match(text)
    return found[1].rpartition(".")[2] if found else ""


def _close(first: str, second: str) -> bool:
    """The same text around numbers that agree to nine digits."""
    numbers = [[float(one) for one in _NUMBER.findall(text)] for text in (first, second)]
    return _NUMBER.sub("#", first) == _NUMBER.sub("#", second) and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in zip(*numbers, strict=True)
    )


def _parts(text: str) -> Counter[str]:
    return Counter(re.findall(r"[^\s,{}()\[\]+*]+", text))


CLASSES: dict[str, Callable[[str, str], bool]] = {
    "equal": lambda old, new: old == new,
    "white space": lambda old, new: old.split() == new.split(),
    "the time limit, then and now": lambda old, new: "Time" in _error(old) and "Time" in _error(new),
    "the time limit, then or now": lambda old, new: "Time" in _error(old) + _error(new),
    "the same error in other words": lambda old, new: bool(_error(old)) and _error(old) == _error(new),
    "a package that is not installed": lambda old, new: "No module named" in new,
    "another error": lambda old, new: bool(_error(old) and _error(new)),
    "an error then, none now": lambda old, new: bool(_error(old)),
    "an error now, none then": lambda old, new: bool(_error(new)),
    "an address in memory": lambda old, new: re.sub("0x[0-9a-f]+", "", old) == re.sub("0x[0-9a-f]+", "", new),
    "last digits of floats": _close,
    "order of a set or a sum": lambda old, new: _parts(old) == _parts(new),
    "another form of an equal value": lambda old, new: grade(old, new).equal is True,
    "something else": lambda old, new: True,
}
"""Class → whether (recorded, printed) belongs to it; the first that holds counts."""


# --- running


def programs(rows: list[dict[str, Any]]) -> list[Program]:
    return [
        Program(row, sample, found["code"], found["output"].strip())
        for row, record in enumerate(rows)
        for sample, code in enumerate(record["code"])
        for found in _ROUND.finditer(code)
    ]


async def run_all(
    todo: list[Program], timeout_seconds: float, live: bool = False, in_flight: int = 256
) -> list[Program]:
    """Every program in a fresh state, in parallel."""
    gate = asyncio.Semaphore(in_flight)
    async with ForkInterpreter(profile="tora", timeout_seconds=timeout_seconds) as interpreter:
        with Progress(len(todo), unit="program", live=live) as progress:

            async def run(one: Program) -> Program:
                async with gate:
                    execution = await interpreter.run(None, one.code)
                progress.tick({})
                return Program(one.row, one.sample, one.code, one.recorded, execution.observation, execution.seconds)

            return list(await asyncio.gather(*map(run, todo)))


def replaced(code: str, outputs: Iterable[str]) -> str:
    """A trajectory with its outputs replaced, first to last."""
    found = iter(outputs)
    return _ROUND.sub(lambda m: m[0][: m.start("output") - m.start()] + next(found) + "\n```", code)


def _answer(row: dict[str, Any], recorded: str, outputs: list[str] | None) -> str:
    """The answer of a row's first sample after re-execution: the recorded one, unless the new outputs change it."""
    if outputs is None:
        return recorded
    before, after = extract_tora(row["code"][0]), extract_tora(replaced(row["code"][0], outputs))
    return recorded if before == after else after


def graded(rows: list[dict[str, Any]], done: list[Program]) -> dict[str, Any]:
    """Right answers (first samples) as recorded, as re-graded, and as read from the re-executed trajectories."""
    outputs: dict[tuple[int, int], list[str]] = {}
    for one in done:
        outputs.setdefault((one.row, one.sample), []).append(one.printed)
    old = ["" if row["pred"][0] is None else str(row["pred"][0]) for row in rows]
    new = [_answer(row, old[at], outputs.get((at, 0))) for at, row in enumerate(rows)]
    golds = [str(row["gt"]) for row in rows]
    before, after = (
        [one.equal is True for one in grade_all(zip(golds, answers, strict=True), "tora")] for answers in (old, new)
    )
    recorded = [row["score"][0] for row in rows if row.get("score")]
    return {
        "rows": len(rows),
        "recorded right": sum(recorded) if recorded else None,
        "re-graded right": sum(before),
        "right after re-execution": sum(after),
        "verdicts changed": sum(a != b for a, b in zip(before, after, strict=True)),
    }


def read_outputs(path: Path) -> list[dict[str, Any]]:
    """The rows of a ToRA-style output file. Raises UserError."""
    rows = []
    for where, row in read_objects(path):
        if (fault := tora_fault(row)) is not None:
            raise UserError(f"{where}: not a row of a ToRA-style output file: {fault}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no line in it")
    return rows


def reexecute(path: Path, timeout_seconds: float, live: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(report, differences) of one file."""
    rows, started = read_outputs(path), time.monotonic()
    done = asyncio.run(run_all(programs(rows), timeout_seconds, live))
    seconds = time.monotonic() - started
    classes = Counter(one.difference for one in done)
    report: dict[str, Any] = {
        "programs": len(done),
        "seconds": round(seconds, 1),
        "a second": round(len(done) / max(seconds, 1e-9)),
    }
    report |= {"classes": {name: classes[name] for name in CLASSES if classes[name]}, **graded(rows, done)}
    different = [one for one in done if one.recorded != one.printed]
    return report, [{"file": str(path), "class": one.difference, **asdict(one)} for one in different]


@options.command(__doc__)
@click.argument("files", nargs=-1, required=True, type=options.FILE, metavar="FILE...")
@click.option("--differences", type=options.FILE, help="where every difference is listed (JSON lines)")
@click.option("--timeout", type=float, default=5.0, help="seconds a program, as published")
@options.as_json()
@options.live
def command(files: tuple[Path, ...], differences: Path | None, timeout: float, as_json: bool, live: bool) -> None:
    if not 0 < timeout < math.inf:
        raise UserError(f"--timeout {timeout}: expected seconds, more than 0")
    if differences:
        check_output(differences, *files)
    for path in files:
        read_outputs(path)  # a bad file is found before the first program runs
    reports, listed = {}, []
    for path in files:
        reports[str(path)], different = reexecute(path, timeout, live)
        listed += different
        if differences:
            write_lines(differences, listed)
    if as_json:
        print(json.dumps(reports))
        return
    for name, report in reports.items():
        print(name)
        print("\n".join(f"  {key:26}{value}" for key, value in report.items() if key != "classes"))
        print("\n".join(f"    {kind:32}{count:6}" for kind, count in report["classes"].items()))

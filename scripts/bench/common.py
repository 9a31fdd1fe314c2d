"""What every benchmark of a claim shares: the record of a claim, the table, and the JSON file.

A script measures ours and its rival (or the limit) in one run, returns a list of `Claim`, and ends in
`main(__doc__, measure)`, which gives it `--json FILE`. `python -m scripts.bench` runs all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.report.table import text_table
from mcts.jsonl import write_text_whole


@dataclass(frozen=True)
class Claim:
    """One row. ours, rival: measured in one run, in `unit` (the rival may be a limit).

    ratio: what is held against `bar`, such as "≤ 1.1"; None, like `holds`, where the rival is missing, and then `note`
    says why.
    """

    claim: str
    ours: float
    rival: float | None
    ratio: float | None
    bar: str
    holds: bool | None
    unit: str = ""
    note: str = ""


def at_most(claim: str, ours: float, limit: float, bar: float = 1.0, unit: str = "", note: str = "") -> Claim:
    """Holds where ours ÷ limit ≤ bar: the less the better."""
    return Claim(claim, ours, limit, ours / limit, f"≤ {bar:g}", ours / limit <= bar, unit, note)


def at_least(claim: str, ours: float, rival: float, bar: float, unit: str = "", note: str = "") -> Claim:
    """Holds where ours ÷ rival ≥ bar: the more the better."""
    return Claim(claim, ours, rival, ours / rival, f"≥ {bar:g}", ours / rival >= bar, unit, note)


def beside(claim: str, ours: float, other: float | None, unit: str = "", note: str = "no claim") -> Claim:
    """A figure beside another of the same run, for which nothing is claimed."""
    return Claim(claim, ours, other, None if other is None else ours / other, "–", None, unit, note)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(claims: Iterable[Claim]) -> str:
    head = ("claim", "ours", "rival or limit", "unit", "ratio", "bar", "holds")
    lines = []
    for one in claims:
        holds = "–" if one.holds is None else "yes" if one.holds else "NO"
        cells = number(one.ours), number(one.rival), one.unit, number(one.ratio), one.bar, holds
        lines.append((one.claim + (f" ({one.note})" if one.note else ""), *cells))
    return text_table(head, lines, left=len(head))


def machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}"


def main(description: str | None, measure: Callable[[], list[Claim]]) -> None:
    """Runs a benchmark as a command: a table on standard output, and with --json the claims in a file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the claims as a list of objects")
    path: Path | None = parser.parse_args().json
    print(machine(), flush=True)
    claims = measure()
    print(table(claims))
    if path is not None:
        write(path, [asdict(one) for one in claims])
    sys.stdout.flush()


def write(path: Path, claims: list[dict[str, Any]]) -> None:
    write_text_whole(path, json.dumps(claims, indent=1, ensure_ascii=False) + "\n")

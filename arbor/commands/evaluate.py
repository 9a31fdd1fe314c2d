"""Score saved trees and ToRA-style output files: accuracy, votes, best of n, pass@k, with intervals and cost.

arbor evaluate FILE... [--policy tora] [--json]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from arbor.assembly import check_output
from arbor.commands import _options as options
from arbor.commands._progress import Progress
from arbor.shards import check_once
from eval.grading.grader import Grade
from eval.report.methods import average, by_data_set, evaluate, methods_table, tasks_table
from eval.report.rows import read_rows
from mcts.jsonl import write_lines


@options.command(__doc__)
@options.files("FILE...", "expected files of saved trees or of ToRA-style outputs")
@options.policy
@click.option("--pool", is_flag=True, help="the files are parts of one run (shards): one score of all")
@options.as_json("tables")
@options.live
@click.option("--audit", type=options.FILE, default=Path("undecided.jsonl"), help="where undecided pairs are listed")
def command(files: tuple[Path, ...], policy: str, pool: bool, as_json: bool, live: bool, audit: Path) -> None:
    check_output(audit, *files)
    undecided: list[dict[str, Any]] = []

    def along(grades: Iterator[Grade], total: int) -> Iterator[Grade]:
        return Progress(total, name="grading", unit="answer", live=live).over(grades)

    results: dict[str, Any] = {}
    read = {path: read_rows(path, policy) for path in files}
    if pool:
        read = {Path(f"{files[0]} and {len(files) - 1} more"): [row for rows in read.values() for row in rows]}
        check_once(*read.values())
    for path, rows in read.items():
        results[str(path)] = evaluate(rows, policy, undecided, along)
        if not as_json:
            print(methods_table(str(path), results[str(path)]) + "\n")
    report: dict[str, Any] = {"files": results, "undecided": len(undecided)}
    sets = by_data_set(read)
    if (figure := average(sets, policy)) is not None:
        report["AVG@10"] = figure
    if undecided:
        write_lines(audit, undecided)
        report["audit"] = str(audit)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    if len(sets) > 1 or len(read) > len(sets) > 0:
        print(tasks_table(sets, policy) + "\n")
    print("\n".join(f"{key}: {value}" for key, value in report.items() if key != "files"))

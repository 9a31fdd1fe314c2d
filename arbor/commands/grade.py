"""Grade pairs of a gold answer and a prediction: equal, different or undecided.

arbor grade --pairs FILE.jsonl [--policy P] [--json]

A line of the file is an object with `gold`, `prediction` and, optionally, `equal`: then what was judged otherwise is
listed. docs/grading.md describes the policies.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from arbor.commands import _options as options
from eval.grading.grader import BadPairs, as_text, grade_pairs
from mcts.errors import UserError


@options.command(__doc__)
@click.option("--pairs", type=options.FILE, required=True, metavar="FILE", help="JSON lines")
@options.policy
@options.as_json()
def command(pairs: Path, policy: str, as_json: bool) -> None:
    try:
        result = grade_pairs(pairs.read_text(encoding="utf-8").splitlines(), policy)
    except (BadPairs, UnicodeDecodeError) as error:
        raise UserError(f"{pairs}: {error}") from None
    print(json.dumps(result, ensure_ascii=False) if as_json else as_text(result))

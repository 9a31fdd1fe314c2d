"""Compare result files on the same questions: paired accuracy with an exact test, cost, by type and level, changes.

arbor compare A.jsonl B.jsonl... [--format text|json|csv|markdown]

Each later file is compared with the first one, over the questions that both hold. An undecided answer is never right.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.commands import _options as options
from eval.report.compare import FORMATS, compare
from eval.report.rows import read_rows


@options.command(__doc__)
@options.files("A.jsonl B.jsonl...")
@options.policy
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", help="of what is printed")
def command(files: tuple[Path, ...], policy: str, form: str) -> None:
    print(FORMATS[form](compare({str(path): read_rows(path, policy) for path in files}, policy)))

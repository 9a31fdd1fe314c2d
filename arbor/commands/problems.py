"""Write fresh problems for the embedded model: questions with their answers, any seed.

arbor problems --family chains --seed 7 --limit 500 --output problems.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from arbor.assembly import check_output
from arbor.commands import _options as options
from models.tiny.problems import SEEDS, SPLITS, Family, generate, write


@options.command(__doc__)
@options.seed("of the problems", SEEDS["test"])
@click.option("--limit", "--n", "limit", type=options.Whole(1), default=500, help="how many problems")
@click.option("--family", type=click.Choice(get_args(Family)), default="guess", help="guess and check, long chains")
@click.option("--split", type=click.Choice(tuple(SPLITS)), default="test", help="which share of all equations")
@options.output("question file (JSON lines)")
def command(seed: int, limit: int, family: str, split: str, output: Path) -> None:
    check_output(output)
    write(generate(seed, limit, split, family), output)  # type: ignore[arg-type]
    print(f"{limit} problems in {output}")

"""Measure the claims about speed, ours beside the rival or the limit of the same run: tables, and bench.json.

arbor bench [NAME...] [--output bench.json]

The benchmarks stand in scripts/bench of the repository, a file each.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.commands import _options as options
from mcts.errors import UserError


@options.command(__doc__)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--output", type=options.FILE, metavar="FILE", default=Path("bench.json"), help="the claims (JSON)")
def command(names: tuple[str, ...], output: Path) -> int:
    try:
        from scripts.bench.all import measure_all
    except ImportError:
        raise UserError("the benchmarks are in the repository (scripts/bench), not in the installed package") from None
    return int(measure_all(names, output))

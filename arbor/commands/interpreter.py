"""Run snippets from standard input, separated by lines of `---`, one after another in one state.

echo 'print(6 * 7)' | arbor interpreter

Prints each observation. A snippet that was killed leaves the state that was before it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import click

from arbor.commands import _options as options
from mcts.interpreter.__main__ import converse
from mcts.interpreter.observation import PROFILES


@options.command(__doc__)
@click.option(
    "--profile", type=click.Choice(sorted(PROFILES)), default="alphamath", help="how observations are written"
)
@click.option("--sandbox", type=click.Choice(("auto", "required", "off")), default="auto", help="how code is confined")
@click.option("--timeout", type=float, default=15.0, help="seconds of wall time a snippet")
def command(**settings: Any) -> None:
    asyncio.run(converse(**settings))

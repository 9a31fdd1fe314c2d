"""Print the accuracy of the first answer of every line of a tree file.

arbor score --trees TREES.jsonl
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from arbor.commands import _options as options
from eval.report.tally import Tally
from mcts.errors import UserError
from mcts.search.offline import top_answer
from mcts.trees.file import read_tree_lines
from mcts.trees.record import TreeError


async def score(path: Path) -> Tally:
    tally = Tally()
    for where, record in read_tree_lines(path):
        try:
            await tally.add(record, top_answer(record), where)
        except TreeError as error:
            raise UserError(f"{where}: not a saved tree: {error}") from None
    return tally


@options.command(__doc__)
@options.trees("saved trees, one line a question", "--res_file")
@click.option("--react", is_flag=True, help="accepted for compatibility: linear trees are recognised")
def command(trees: Path, react: bool) -> None:
    print(asyncio.run(score(trees)))

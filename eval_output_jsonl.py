"""The accuracy of the first answer of every line of a tree file.

python eval_output_jsonl.py --res_file TREES.jsonl
"""

from __future__ import annotations

import argparse
import asyncio

from mcts.errors import UserError
from mcts.search.offline import top_answer
from mcts.trees.file import read_tree_lines
from mcts.trees.record import TreeError
from scripts.assembly import run_command
from scripts.report import Tally


async def score(path: str) -> Tally:
    tally = Tally()
    for where, record in read_tree_lines(path):
        try:
            await tally.add(record, top_answer(record), where)
        except TreeError as error:
            raise UserError(f"{where}: not a saved tree: {error}") from None
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--res_file", required=True, metavar="FILE", help="saved trees, one line a question")
    parser.add_argument("--react", action="store_true", help="the file holds linear trees (they are recognised anyway)")
    print(asyncio.run(score(parser.parse_args().res_file)))
    return 0


if __name__ == "__main__":
    run_command(main)

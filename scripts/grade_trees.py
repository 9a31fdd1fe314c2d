"""Grades the answers of saved trees whose search gave no rewards, for training: FILE.grades beside each file.

python scripts/grade_trees.py TREES.jsonl...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from mcts.errors import UserError
from mcts.question import Question
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node, walk
from models.training.examples import file_hash, grades_path
from scripts.assembly import grade, run_command

AT_ONCE = 64


async def grade_tree(root: Node, answers: tuple[str, ...]) -> dict[str, bool | None]:
    """Tag → verdict (null: undecided) of every answered leaf that has no reward yet."""
    leaves = [node for node in walk(root) if node.answered and not node.children]
    return {leaf.tag: await grade(answers, leaf.final_answer) for leaf in leaves if leaf.reward is None}


async def grade_line(number: int, where: str, record: dict[str, Any], version: str) -> dict[str, Any]:
    """The verdicts on a line. trees: the version of the tree file, so that a later one is not taken for it."""
    answers = Question(number, record, where).answers
    if not answers:
        raise UserError(f'{where}: no "answer" to grade against')
    grades = [await grade_tree(root, answers) for root in read_roots(where, record)]
    return {"line": number, "trees": version, "grades": grades}


async def grade_file(path: Path) -> Path:
    output, version = grades_path(path), file_hash(path)
    unfinished = output.with_name(f"{output.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as lines:
        waiting = []
        for number, (where, record) in enumerate(tqdm(read_tree_lines(path), unit="tree", desc="grade")):
            waiting.append(asyncio.create_task(grade_line(number, where, record, version)))
            if len(waiting) == AT_ONCE:
                lines.writelines(json.dumps(row) + "\n" for row in await asyncio.gather(*waiting))
                waiting.clear()
        lines.writelines(json.dumps(row) + "\n" for row in await asyncio.gather(*waiting))
    os.replace(unfinished, output)
    return output


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="+", help="tree files")
    for path in parser.parse_args().trees:
        print(asyncio.run(grade_file(path)))
    return 0


if __name__ == "__main__":
    run_command(main)

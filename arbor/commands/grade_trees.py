"""Grade the answers of saved trees whose search gave no rewards, for training: FILE.grades beside each file.

arbor grade-trees TREES.jsonl...
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from arbor.assembly import grade
from arbor.commands import _options as options
from arbor.commands._progress import Progress
from eval.report.tally import gold_answers
from mcts.jsonl import encode_line, write_whole
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node, walk
from models.training.examples import file_hash, grades_path

AT_ONCE = 64


async def grade_tree(root: Node, answers: tuple[str, ...]) -> dict[str, bool | None]:
    """Tag → verdict (null: undecided) of every answered leaf that has no reward yet."""
    leaves = [node for node in walk(root) if node.answered and not node.children]
    return {leaf.tag: await grade(answers, leaf.final_answer) for leaf in leaves if leaf.reward is None}


async def grade_line(number: int, where: str, record: dict[str, Any], version: str) -> dict[str, Any]:
    """The verdicts on a line. trees: the version of the tree file, so that a later one is not taken for it."""
    answers = gold_answers(where, record)
    grades = [await grade_tree(root, answers) for root in read_roots(where, record)]
    return {"line": number, "trees": version, "grades": grades}


async def grade_file(path: Path, live: bool) -> Path:
    output, version = grades_path(path), file_hash(path)
    with write_whole(output) as file:
        waiting: list[asyncio.Task[dict[str, Any]]] = []
        lines = Progress(None, name="grade", unit="tree", live=live).over(read_tree_lines(path))
        for number, (where, record) in enumerate(lines):
            waiting.append(asyncio.create_task(grade_line(number, where, record, version)))
            if len(waiting) == AT_ONCE:
                file.writelines(map(encode_line, await asyncio.gather(*waiting)))
                waiting.clear()
        file.writelines(map(encode_line, await asyncio.gather(*waiting)))
    return output


@options.command(__doc__)
@options.files("TREES.jsonl...", "expected tree files")
@options.live
def command(files: tuple[Path, ...], live: bool) -> None:
    for path in files:
        print(asyncio.run(grade_file(path, live)))

"""Decide again on saved trees, with another strategy, beam or pruning, and print the accuracy.

arbor decide --config configs/offline_inference.yaml --trees TREES.jsonl
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from arbor.assembly import grade
from arbor.commands import _options as options
from eval.report.tally import Tally
from mcts.search.offline import decided_by
from mcts.search.rules import path_value
from mcts.search.voting import Candidate, decide
from mcts.trees.file import read_roots, read_tree_lines
from models.engines.config import RunConfig


async def pick(where: str, record: dict[str, Any], config: RunConfig) -> str | None:
    """The answer that a line's tree gives; several trees of one question decide by a majority."""
    candidates: list[Candidate] = []
    for run, root in enumerate(read_roots(where, record)):
        answers = decided_by(config, root, prune=config.prune)
        candidates += [
            Candidate(node.final_answer, path_value(node, config.path_value), node.tag, run) for node in answers[:1]
        ]
    decision = await decide(candidates, "majority", grade)
    return decision.final_answer if decision else None


async def decide_all(config: RunConfig, path: Path) -> Tally:
    tally = Tally()
    for where, record in read_tree_lines(path):
        await tally.add(record, await pick(where, record, config), where)
        await asyncio.sleep(0)  # where a signal ends the work, if nothing else had to be waited for
    return tally


@options.command(__doc__)
@options.config()
@options.trees("saved trees, one line a question", "--tree_jsonl")
def command(config: RunConfig, trees: Path) -> None:
    print(asyncio.run(decide_all(config, trees)))

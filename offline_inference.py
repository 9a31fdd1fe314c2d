"""Decides again on saved trees, with another strategy, beam or pruning, and prints the accuracy.

python offline_inference.py --custom_cfg configs/offline_inference.yaml --tree_jsonl TREES.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from mcts.search.offline import offline_inference
from mcts.search.voting import Candidate, decide
from mcts.trees.file import read_roots, read_tree_lines
from models.engines.config import RunConfig, load_config
from scripts.assembly import add_config_arguments, grade, run_command
from scripts.report import Tally


async def pick(where: str, record: dict[str, Any], config: RunConfig) -> str | None:
    """The answer that a line's tree gives; several trees of one question decide by a majority."""
    candidates: list[Candidate] = []
    for run, root in enumerate(read_roots(where, record)):
        answers = offline_inference(
            root,
            strategy=config.mcts_infer_strategy,
            beam_width=config.step_beam_width,
            samples=config.n_generate_sample,
            prune=config.prune,
            c_puct=config.c_puct,
        )
        candidates += [Candidate(node.final_answer, node.value, node.tag, run) for node in answers[:1]]
    decision = await decide(candidates, "majority", grade)
    return decision.final_answer if decision else None


async def decide_all(config: RunConfig, path: str) -> Tally:
    tally = Tally()
    for where, record in read_tree_lines(path):
        await tally.add(record, await pick(where, record, config), where)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--tree_jsonl", required=True, metavar="TREES", help="saved trees, one line a question")
    arguments = parser.parse_args()
    config = load_config(arguments.custom_cfg, arguments.set)
    print(asyncio.run(decide_all(config, arguments.tree_jsonl)))
    return 0


if __name__ == "__main__":
    run_command(main)

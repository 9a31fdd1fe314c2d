"""Decides sampled solutions by a value head: outcome-supervised reranking (OVM), best of n.

python scripts/rerank.py --trees SAMPLED.jsonl --model DIR --output RERANKED.jsonl [--vote value_weighted]

Every node gets the value that DIR's head gives it. --model need not be the model that sampled: it only has to share
its token ids.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from mcts.errors import UserError
from mcts.question import Question
from mcts.search.voting import Candidate, decide
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import walk
from scripts.assembly import check_output, grade, run_command


async def rerank(where: str, record: dict[str, Any], scorer: Any, vote: str) -> dict[str, Any]:
    """The record with the scorer's values and the decision that they make."""
    trees = [record["react"], *record.get("runs", ())]
    roots = read_roots(where, record)
    candidates = []
    for run, (root, tree, values) in enumerate(zip(roots, trees, scorer.values(roots, where), strict=True)):
        for tag, value in values.items():
            tree[tag]["value"] = value
        leaves = [node for node in walk(root) if node.answered and not node.children]
        candidates += [Candidate(leaf.final_answer, values[leaf.tag], leaf.tag, run) for leaf in leaves]
    candidates.sort(key=lambda candidate: -candidate.value)
    decision = await decide(candidates, vote, grade)
    prediction = None if decision is None else asdict(decision)
    answers = Question(0, record, where).answers
    if prediction is not None and answers:
        prediction["correct"] = await grade(answers, prediction["final_answer"])
    return {**record, "prediction": prediction}


async def rerank_file(arguments: argparse.Namespace) -> None:
    from models.training.score import Scorer

    scorer = Scorer(arguments.model)
    unfinished = arguments.output.with_name(f"{arguments.output.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as lines:
        for where, record in tqdm(read_tree_lines(arguments.trees), unit="question", desc="rerank"):
            lines.write(json.dumps(await rerank(where, record, scorer, arguments.vote)) + "\n")
    os.replace(unfinished, arguments.output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=Path, required=True, help="tree file, usually of several runs a question")
    parser.add_argument("--model", type=Path, required=True, help="model folder with a value head")
    parser.add_argument("--output", type=Path, required=True, help="tree file (never overwritten)")
    parser.add_argument("--vote", choices=("none", "value_weighted"), default="none", help="none: the best (default)")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise UserError(f"{arguments.output}: exists already; choose another --output")
    check_output(arguments.output)
    asyncio.run(rerank_file(arguments))
    print(arguments.output)
    return 0


if __name__ == "__main__":
    run_command(main)

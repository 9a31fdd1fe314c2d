"""Decide sampled solutions by a value head: outcome-supervised reranking (OVM), best of n.

arbor rerank --trees SAMPLED.jsonl --model DIR --output RERANKED.jsonl [--vote value_weighted]

Every node gets the value that DIR's head gives it. --model need not be the model that sampled: it only has to share
its token ids.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from arbor.assembly import check_output, grade
from arbor.commands import _options as options
from arbor.commands._progress import Progress
from eval.data.questions import read_answers
from mcts.jsonl import encode_line, write_whole
from mcts.search.offline import saved_rule
from mcts.search.rules import path_value
from mcts.search.voting import Candidate, decide
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import walk


async def rerank(where: str, record: dict[str, Any], scorer: Any, vote: str, rule: str) -> dict[str, Any]:
    """The record with the scorer's values and the decision that they make."""
    trees = [record["react"], *record.get("runs", ())]
    roots = read_roots(where, record)
    candidates = []
    for run, (root, tree, values) in enumerate(zip(roots, trees, scorer.values(roots, where), strict=True)):
        for node in walk(root):
            tree[node.tag]["value"] = node.value = values[node.tag]
        leaves = [node for node in walk(root) if node.answered and not node.children]
        candidates += [Candidate(leaf.final_answer, path_value(leaf, rule), leaf.tag, run) for leaf in leaves]
    candidates.sort(key=lambda candidate: -candidate.value)
    decision = await decide(candidates, vote, grade)
    prediction = None if decision is None else asdict(decision)
    answers = read_answers(record, where)
    if prediction is not None and answers:
        prediction["correct"] = await grade(answers, prediction["final_answer"])
    return {**record, "prediction": prediction}


async def rerank_file(trees: Path, model: Path, output: Path, vote: str, rule: str | None, live: bool) -> None:
    from models.engines.folder import quiet_transformers
    from models.training.score import Scorer

    quiet_transformers()
    scorer = Scorer(model)
    with write_whole(output) as file, Progress(None, name="rerank", live=live) as progress:
        for where, record in read_tree_lines(trees):
            decided = await rerank(where, record, scorer, vote, rule or saved_rule(record))
            file.write(encode_line(decided))
            progress.tick(decided)
            await asyncio.sleep(0)  # where a signal ends the work, if nothing else had to be waited for


@options.command(__doc__)
@options.trees("tree file, usually of several runs a question")
@options.model("model folder with a value head")
@options.output("tree file (never overwritten)")
@click.option("--vote", type=click.Choice(("none", "value_weighted")), default="none", help="none: the best")
@options.path_value
@options.live
def command(trees: Path, model: Path, output: Path, vote: str, path_value: str | None, live: bool) -> None:
    check_output(output, new=True)
    asyncio.run(rerank_file(trees, model, output, vote, path_value, live))
    print(output)

"""Measure how well a value head ranks siblings: AUC within a problem, over pairs of children of one node.

arbor rank-siblings --trees TREES.jsonl --model DIR [--json FILE]

A child's truth is the mean outcome (+1, -1) of the graded leaves below it; pairs whose truths differ count. The trees
come from a search that knows the answers (`is_sampling`), so the truth is what that search found below, no more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from arbor.assembly import check_output
from arbor.commands import _options as options
from arbor.commands._progress import Progress
from eval.report.siblings import KINDS, auc, pairs
from mcts.errors import UserError
from mcts.jsonl import write_text_whole
from mcts.trees.file import read_roots, read_tree_lines


@options.command(__doc__)
@options.trees("tree file of a search with `is_sampling: true`")
@options.model("model folder with a value head")
@click.option(
    "--output", "--json", "output", type=options.FILE, metavar="FILE", help="where the result is written (JSON)"
)
@options.live
def command(trees: Path, model: Path, output: Path | None, live: bool) -> None:
    if output:
        check_output(output, trees)
    from models.engines.folder import quiet_transformers
    from models.training.score import Scorer

    quiet_transformers()
    scorer = Scorer(model)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for where, record in Progress(None, unit="tree", live=live).over(read_tree_lines(trees)):
        roots = read_roots(where, record)
        for root, values in zip(roots, scorer.values(roots, where), strict=True):
            for kind, right in pairs(root, values):
                found[kind].append(right)
    if not any(found.values()):
        raise UserError(
            f"{trees}: no two siblings whose outcomes differ; "
            "expected trees of mode mcts with is_sampling: true, which knows the answers"
        )
    every = [one for rights in found.values() for one in rights]
    result: dict[str, Any] = {kind: auc(rights) for kind, rights in {**found, "all siblings": every}.items()}
    if output:
        write_text_whole(output, json.dumps(result, indent=1) + "\n")
    for kind, one in result.items():
        print(f"{kind}: AUC {one['auc']:.3f} over {one['pairs']} pairs" if one["pairs"] else f"{kind}: no pair")

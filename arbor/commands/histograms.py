"""Draw histograms of Q values: inner steps on training trees, steps on held-out trees split by right and wrong.

arbor histograms --training TREES.jsonl... --held-out TREES.jsonl... --output DIR

One panel a file; training trees come from MCTS with known answers, held-out trees from MCTS whose predictions were
graded.
Needs matplotlib (requirements-dev.txt).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from arbor.assembly import make_folder
from arbor.commands import _options as options
from mcts.errors import UserError
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node, walk

BINS = 40


def inner_q(root: Node) -> list[float]:
    """Q of every visited step that is no leaf."""
    return [node.q_value for node in walk(root) if node.parent is not None and node.children and node.visit_count]


def path_q(where: str, roots: Sequence[Node], prediction: Mapping[str, Any]) -> list[float]:
    """Q of every step on the path to the prediction."""
    run, tag = prediction.get("run", 0), prediction.get("tag")
    leaf = next((node for root in roots[run : run + 1] for node in walk(root) if node.tag == tag), None)
    if leaf is None:
        raise UserError(f"{where}: the prediction's node {tag} is not in the tree of run {run}")
    return [node.q_value for node in leaf.path() if node.visit_count]


def training_values(path: Path) -> dict[str, list[float]]:
    roots = (root for where, record in read_tree_lines(path) for root in read_roots(where, record))
    return {"inner steps": [q for root in roots for q in inner_q(root)]}


def held_out_values(path: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"right": [], "wrong": []}
    for where, record in read_tree_lines(path):
        prediction = record.get("prediction")
        if prediction is not None and prediction.get("correct") is not None:
            kind = "right" if prediction["correct"] else "wrong"
            found[kind] += path_q(where, read_roots(where, record), prediction)
    return found


def draw(panels: Sequence[tuple[str, dict[str, list[float]]]], title: str, output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3), squeeze=False, sharey=True)
    for axis, (name, groups) in zip(axes[0], panels, strict=True):
        for label, values in groups.items():
            axis.hist(values, BINS, range=(-1, 1), density=bool(values), alpha=0.6, label=f"{label}, n = {len(values)}")
        axis.set(title=name, xlabel="Q")
        axis.legend(fontsize=7)
    axes[0][0].set_ylabel("density")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def named(paths: Sequence[Path], read: Any) -> list[tuple[str, dict[str, list[float]]]]:
    panels = [(f"{path.parent.name}/{path.stem}", read(path)) for path in paths]
    if empty := [name for name, groups in panels if not any(groups.values())]:
        raise UserError(f"{empty[0]}: no Q value in it; expected trees of MCTS")
    return panels


@options.command(__doc__)
@click.option("--training", cls=options.Several, type=options.FILE, metavar="FILE...", help="trees with rewards")
@click.option("--held-out", cls=options.Several, type=options.FILE, metavar="FILE...", help="trees with predictions")
@options.output("folder of the pictures")
def command(training: tuple[Path, ...], held_out: tuple[Path, ...], output: Path) -> None:
    if not training and not held_out:
        raise UserError("no trees to draw: name some with --training or --held-out")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("matplotlib is not installed: pip install -r requirements-dev.txt")
    make_folder(output)
    for paths, read, name, title in (
        (training, training_values, "q_training.png", "Q of inner steps, training problems"),
        (held_out, held_out_values, "q_held_out.png", "Q of the steps of predictions, held-out problems"),
    ):
        if paths:
            draw(named(paths, read), title, output / name)
            print(output / name)

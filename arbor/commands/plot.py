"""Draw figures of saved trees: Q values, accuracy against tokens, the value head, cost, rounds.

arbor plot TREES.jsonl... --output DIR [--only NAME...]
arbor plot --training TREES.jsonl... --held-out TREES.jsonl... --output DIR

Without --only every figure is drawn that the files have the numbers for. Beside each stands a JSON file of its numbers.
A folder of rounds gives the figure of its rounds. --training and --held-out name files for the two histograms of Q
values alone: inner steps of MCTS with known answers, and steps of graded predictions. Needs matplotlib
(requirements-dev.txt).
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from arbor.assembly import make_folder, shown
from arbor.commands import _options as options
from eval.report.figures import FIGURES, check_matplotlib, draw
from mcts.errors import UserError
from mcts.jsonl import write_text_whole, write_whole

FORMS = ("png", "svg", "pdf")


@options.command(__doc__)
@options.files("TREES.jsonl...")
@click.option("--training", cls=options.Several, type=options.FILE, metavar="FILE...", help="trees with rewards")
@click.option("--held-out", cls=options.Several, type=options.FILE, metavar="FILE...", help="trees with predictions")
@click.option("--only", cls=options.Several, type=click.Choice(list(FIGURES)), help="these figures")
@click.option("--format", "form", type=click.Choice(FORMS), default="png", help="of the figures")
@options.output("folder of the pictures")
def command(
    files: tuple[Path, ...],
    training: tuple[Path, ...],
    held_out: tuple[Path, ...],
    only: tuple[str, ...],
    form: str,
    output: Path,
) -> None:
    folders = [path for path in files if path.is_dir()]
    given = {name: [path for path in files if path not in folders] for name in FIGURES if name != "rounds"}
    given |= {"rounds": folders, "q_training": list(training) or given["q_training"]}
    given["q_held_out"] = list(held_out) or given["q_held_out"]
    wanted = {name: paths for name, paths in given.items() if paths and name in (only or FIGURES)}
    if not wanted:
        raise UserError("no trees to draw: name some, or some with --training or --held-out")
    check_matplotlib()
    make_folder(output)
    asked = {*only, *(["q_training"] if training else []), *(["q_held_out"] if held_out else [])}
    drawn = [_draw(name, paths, output / f"{name}.{form}", name in asked) for name, paths in wanted.items()]
    if not any(drawn):
        raise UserError(f"{', '.join(map(str, files))}: no figure can be drawn of this")


def _draw(name: str, paths: list[Path], path: Path, asked: bool) -> bool:
    """Draws a figure, or says why it is left out, unless it was asked for: then UserError says it."""
    try:
        numbers = FIGURES[name].numbers(paths)
    except UserError as error:
        if asked:
            raise
        print(f"{name}: left out: {error}")
        return False
    with write_whole(path) as file:
        draw(FIGURES[name], numbers, file, path.suffix[1:])
    write_text_whole(path.with_suffix(".json"), json.dumps(numbers) + "\n")
    print(shown(path))
    return True

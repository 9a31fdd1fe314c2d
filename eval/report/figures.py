"""Figures of tree files: what each shows as plain numbers, and its drawing, which needs matplotlib."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report.scores import accuracy, wilson
from eval.report.siblings import KINDS, auc, pairs
from mcts.errors import UserError
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import NOT_EVALUATED, Node, walk

Numbers = dict[str, Any]
BINS = 40
LEVELS = 10  # of value, in the figure of calibration


def check_matplotlib() -> None:
    """Raises UserError where no figure can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("matplotlib is not installed: pip install -r requirements-dev.txt")


def trees(path: Path) -> Iterator[tuple[str, dict[str, Any], list[Node]]]:
    for where, record in read_tree_lines(path):
        yield where, record, read_roots(where, record)


# --- Q values, as the published histograms show them


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
    """Q of the inner steps of a file."""
    return {"inner steps": [q for _, _, roots in trees(path) for root in roots for q in inner_q(root)]}


def held_out_values(path: Path) -> dict[str, list[float]]:
    """Q of the steps of graded predictions, right and wrong ones."""
    found: dict[str, list[float]] = {"right": [], "wrong": []}
    for where, record, roots in trees(path):
        prediction = record.get("prediction")
        if prediction is not None and prediction.get("correct") is not None:
            found["right" if prediction["correct"] else "wrong"] += path_q(where, roots, prediction)
    return found


def histograms(paths: Sequence[Path], read: Callable[[Path], dict[str, list[float]]]) -> Numbers:
    """A panel for each file that has any. Raises UserError where none has."""
    panels = {f"{path.parent.name}/{path.stem}": read(path) for path in paths}
    found = {name: groups for name, groups in panels.items() if any(groups.values())}
    if not found:
        raise UserError(f"{next(iter(panels))}: no Q value in it; expected trees of MCTS")
    return found


def draw_histograms(panels: Numbers, figure: Any) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (name, groups) in zip(axes, panels.items(), strict=True):
        for label, values in groups.items():
            axis.hist(values, BINS, range=(-1, 1), density=bool(values), alpha=0.6, label=f"{label}, n = {len(values)}")
        axis.set(title=name, xlabel="Q")
        axis.legend(fontsize=7)
    axes[0].set_ylabel("density")


# --- accuracy against tokens


def accuracy_points(paths: Sequence[Path]) -> Numbers:
    """Of each file whose predictions were graded: accuracy in per cent, its interval, tokens generated a question."""
    points = []
    for path in paths:
        grades: list[bool | None] = []
        tokens: list[int] = []
        for _, record in read_tree_lines(path):
            prediction, meta = record.get("prediction") or {}, record.get("meta") or {}
            if record.get("answer") is not None and ("correct" in prediction or not prediction):
                grades.append(prediction.get("correct", False))
                tokens.append(meta.get("tokens_generated", -1))
        if grades and min(tokens) >= 0:
            score = accuracy(grades)
            points.append({"method": path.stem, "n": score.n, "accuracy": score.percent, "low": score.low,
                           "high": score.high, "tokens": sum(tokens) / len(tokens)})  # fmt: skip
    if not points:
        raise UserError("no graded prediction with its tokens; expected trees of questions with answers")
    return {"points": points}


def draw_accuracy(numbers: Numbers, figure: Any) -> None:
    """Points of one method at several k ("Maj @ 5") are joined."""
    axis = figure.subplots()
    points = numbers["points"]
    for name in dict.fromkeys(one["method"].partition(" @ ")[0] for one in points if " @ " in one["method"]):
        curve = [one for one in points if one["method"].startswith(f"{name} @ ")]
        axis.plot([one["tokens"] for one in curve], [one["accuracy"] for one in curve], "o-", label=f"{name} @ k")
    for one in (one for one in points if " @ " not in one["method"]):
        bars = [[one["accuracy"] - one["low"]], [one["high"] - one["accuracy"]]]
        axis.errorbar([one["tokens"]], [one["accuracy"]], bars, fmt="s", capsize=3, label=one["method"])
    axis.set(xscale="log", xlabel="tokens generated a question", ylabel="accuracy % (bars: 95 %)")
    axis.legend(fontsize=8)


# --- the value head


def judged(path: Path) -> Iterator[tuple[float, bool]]:
    """(value, whether it is right) of every answer whose outcome the file holds and that the value head judged."""
    for _, record, roots in trees(path):
        prediction = record.get("prediction") or {}
        for root in roots:
            for node in walk(root):
                if node.answered and node.value != NOT_EVALUATED:
                    if node.reward is not None:
                        yield node.value, node.reward > 0
                    elif prediction.get("correct") is not None and node.final_answer == prediction["final_answer"]:
                        yield node.value, prediction["correct"]


def calibration(paths: Sequence[Path]) -> Numbers:
    """By level of value: how often the answers are right. Raises UserError where no outcome is known.

    error: the mean over the answers of |share of right ones in the level − (1 + mean value) / 2|.
    """
    found: list[list[tuple[float, bool]]] = [[] for _ in range(LEVELS)]
    for path in paths:
        for value, right in judged(path):
            found[min(LEVELS - 1, max(0, int((value + 1) / 2 * LEVELS)))].append((value, right))
    total = sum(map(len, found))
    if not total:
        raise UserError("no answer with both a value and an outcome; expected trees with the value head and answers")
    levels = []
    for group in filter(None, found):
        correct = sum(one for _, one in group)
        low, high = wilson(correct, len(group))
        mean = sum(value for value, _ in group) / len(group)
        levels.append({"value": mean, "n": len(group), "right": 100 * correct / len(group), "low": low, "high": high})
    error = sum(one["n"] * abs(one["right"] / 100 - (1 + one["value"]) / 2) for one in levels) / total
    return {"levels": levels, "n": total, "error": error}


def draw_calibration(numbers: Numbers, figure: Any) -> None:
    axis = figure.subplots()
    levels = numbers["levels"]
    axis.plot([-1, 1], [0, 100], "--", color="grey", label="calibrated")
    bars = [[one["right"] - one["low"] for one in levels], [one["high"] - one["right"] for one in levels]]
    shares = [one["right"] for one in levels]
    label = f"{numbers['n']} answers, error {numbers['error']:.3f}"
    axis.errorbar([one["value"] for one in levels], shares, bars, fmt="o-", capsize=3, label=label)
    axis.set(xlabel="value of an answer", ylabel="right % (bars: 95 %)", xlim=(-1.05, 1.05), ylim=(-3, 103))
    axis.legend(fontsize=8)


def sibling_ranking(paths: Sequence[Path]) -> Numbers:
    """Of each file: how often the value in the tree ranks the better of two siblings higher. Raises UserError."""
    found = {}
    for path in paths:
        ranks: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _, _, roots in trees(path):
            for root in roots:
                values = {node.tag: node.value for node in walk(root) if node.value != NOT_EVALUATED}
                for kind, rank in pairs(root, values):
                    ranks[kind].append(rank)
        if any(ranks.values()):
            found[path.stem] = {kind: auc(one) for kind, one in ranks.items()}
    if not found:
        raise UserError("no two siblings whose outcomes differ; expected trees of MCTS with is_sampling: true")
    return found


def draw_siblings(numbers: Numbers, figure: Any) -> None:
    axis = figure.subplots()
    for at, kind in enumerate(KINDS):
        for place, one in enumerate(numbers[name][kind] for name in numbers):
            if one["pairs"]:
                low, high = wilson(one["auc"] * one["pairs"], one["pairs"])
                bars = [[one["auc"] - low / 100], [high / 100 - one["auc"]]]
                label = kind if kind not in axis.get_legend_handles_labels()[1] else None
                axis.bar(place + 0.4 * at, one["auc"], 0.38, color=f"C{at}", yerr=bars, capsize=3, label=label)
                axis.text(place + 0.4 * at, 0.02, f"{one['pairs']}", ha="center", color="white", fontsize=7)
    axis.axhline(0.5, color="grey", linestyle="--")
    axis.set_xticks([place + 0.2 for place in range(len(numbers))], list(numbers), fontsize=8)
    axis.set(ylabel="AUC within a problem (pairs below)", ylim=(0, 1))
    axis.legend(fontsize=8)


# --- cost and rounds


def cost(paths: Sequence[Path]) -> Numbers:
    """Of each file: tokens and seconds a question, by what they were spent on. Raises UserError.

    Tokens, prefill: positions computed beside those that were generated. Seconds: a question's share of the engine's
    time, its code and its grading (both with their waiting); the rest of its own clock is the search itself and waiting
    for an engine that serves other questions. Files of earlier versions have the code alone.
    """
    found = {}
    for path in paths:
        metas = [record.get("meta") or {} for _, record in read_tree_lines(path)]
        if all("tokens_generated" in meta and "wall_seconds" in meta for meta in metas):
            mean = {key: sum(meta.get(key) or 0 for meta in metas) / len(metas) for key in _COSTS + _seconds(metas)}
            seconds = {key.removesuffix("_seconds"): mean[key] for key in _seconds(metas)}
            found[path.stem] = {
                "tokens": {
                    "decode": mean["tokens_generated"],
                    "prefill": max(0.0, mean["tokens_computed"] - mean["tokens_generated"]),
                    "reused": mean["tokens_reused"],
                },
                "seconds": {**seconds, "host and waiting": max(0.0, mean["wall_seconds"] - sum(seconds.values()))},
            }
    if not found:
        raise UserError("no costs in the files; expected trees that this version's searches wrote")
    return found


_COSTS = ("tokens_generated", "tokens_computed", "tokens_reused", "wall_seconds")


def _seconds(metas: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What seconds are recorded of, beside the whole."""
    keys = dict.fromkeys(key for meta in metas for key in meta if key.endswith("_seconds") and key != "wall_seconds")
    return tuple(keys)


def draw_cost(numbers: Numbers, figure: Any) -> None:
    for axis, unit in zip(figure.subplots(1, 2), ("tokens", "seconds"), strict=True):
        parts = dict.fromkeys(part for one in numbers.values() for part in one[unit])
        below = [0.0] * len(numbers)
        for part in parts:
            sizes = [one[unit].get(part, 0.0) for one in numbers.values()]
            axis.barh(list(numbers), sizes, left=below, label=part)
            below = [a + b for a, b in zip(below, sizes, strict=True)]
        axis.set(xlabel=f"{unit} a question")
        axis.legend(fontsize=7)
        axis.tick_params(labelsize=8)


def rounds(paths: Sequence[Path]) -> Numbers:
    """The rows of report.json in folders of rounds. Raises UserError."""
    found: Numbers = {}
    for path in paths:
        report = path / "report.json"
        try:
            rows = json.loads(report.read_text(encoding="utf-8"))
            found[path.name] = [
                {key: row[key] for key in ("round", "method")} | _share(list(row["right"].values())) for row in rows
            ]
        except OSError as error:
            raise UserError(f"{report}: cannot be read: {error.strerror}; expected a folder of rounds") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{report}: not the report of rounds") from None
    return found


def _share(right: list[bool]) -> Numbers:
    score = accuracy(right)
    return {"n": score.n, "accuracy": score.percent, "low": score.low, "high": score.high}


def draw_rounds(numbers: Numbers, figure: Any) -> None:
    axes = figure.subplots(1, len(numbers), squeeze=False, sharey=True)[0]
    for axis, (name, rows) in zip(axes, numbers.items(), strict=True):
        names = list(dict.fromkeys(row["round"] for row in rows))
        for method in dict.fromkeys(row["method"] for row in rows):
            own = [row for row in rows if row["method"] == method]
            bars = [[row["accuracy"] - row["low"] for row in own], [row["high"] - row["accuracy"] for row in own]]
            places = [names.index(row["round"]) for row in own]
            axis.errorbar(places, [row["accuracy"] for row in own], bars, fmt="o-", capsize=3, label=method)
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set(title=name)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("accuracy % (bars: 95 %)")


@dataclass(frozen=True)
class Figure:
    """numbers: of files; raises UserError where they do not hold what it shows. size: inches, for one panel."""

    title: str
    numbers: Callable[[Sequence[Path]], Numbers]
    draw: Callable[[Numbers, Any], None]
    size: tuple[float, float] = (6.0, 4.0)


FIGURES = {
    "q_training": Figure("Q of inner steps", lambda paths: histograms(paths, training_values), draw_histograms, (4, 3)),
    "q_held_out": Figure(
        "Q of the steps of predictions", lambda paths: histograms(paths, held_out_values), draw_histograms, (4, 3)
    ),
    "accuracy": Figure("Accuracy against tokens", accuracy_points, draw_accuracy),
    "calibration": Figure("Calibration of the value head", calibration, draw_calibration),
    "siblings": Figure("How values rank siblings", sibling_ranking, draw_siblings),
    "cost": Figure("Cost of a question", cost, draw_cost, (9, 3.2)),
    "rounds": Figure("Rounds", rounds, draw_rounds, (5, 4)),
}
"""Name → figure."""


def draw(figure: Figure, numbers: Numbers, output: Any, form: str = "png") -> None:
    """Draws to a file or a buffer. Raises UserError without matplotlib."""
    check_matplotlib()
    from matplotlib.figure import Figure as Canvas

    width, height = figure.size
    panels = len(numbers) if figure.draw in (draw_histograms, draw_rounds) else 1
    canvas = Canvas(figsize=(width * panels, height), layout="tight")
    figure.draw(numbers, canvas)
    canvas.suptitle(figure.title, fontsize=11)
    canvas.savefig(output, dpi=110, format=form)

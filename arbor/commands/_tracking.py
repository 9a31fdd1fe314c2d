"""Figures of a running search for TensorBoard, Weights & Biases or MLflow, by the trackers of accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcts.errors import UserError

if TYPE_CHECKING:
    from arbor.commands._progress import Progress

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Name of a tracker → the package it needs."""
SUMS = ("tokens_generated", "tokens_computed", "tokens_reused", "simulations", "snippets", "code_seconds")


def check_tracker(name: str) -> None:
    """Raises UserError where its package is missing."""
    if importlib.util.find_spec(TRACKERS[name]) is None:
        raise UserError(f"--track {name}: {TRACKERS[name]} is not installed: pip install {TRACKERS[name]}")


class Tracker:
    """Logs a point for every finished question: the share of right answers so far, and what was spent so far.

    folder: where TensorBoard's and MLflow's files go. The step of a point is the number of finished questions.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        check_tracker(name)
        kind = LOGGER_TYPE_TO_CLASS[name]
        self._tracker = kind(folder.name, str(folder)) if kind.requires_logging_directory else kind(folder.name)
        if hasattr(self._tracker, "start"):
            self._tracker.start()
        plain = {key: value if type(value) in (int, float, str, bool) else str(value) for key, value in config.items()}
        self._tracker.store_init_configuration(plain)
        self._sums = dict.fromkeys(SUMS, 0.0)

    def log(self, progress: Progress, record: Mapping[str, Any]) -> None:
        meta = record.get("meta") or {}
        for key in SUMS:
            self._sums[key] += meta.get(key) or 0
        values = {**self._sums, "wall_seconds": meta.get("wall_seconds") or 0.0, "unanswered": progress.reasons.total()}
        if progress.graded:
            values["accuracy"] = 100 * progress.right / progress.graded
        self._tracker.log(values, step=progress.done)

    def finish(self) -> None:
        self._tracker.finish()

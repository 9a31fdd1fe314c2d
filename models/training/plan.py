"""Which units an update sees: a function of the seed alone, so a run that is continued sees what it would have seen."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from models.training.data import Unit
from models.training.settings import TrainSettings

POOL_BATCHES = 16  # so many batches are read ahead and sorted by length, which saves padding


@dataclass
class Plan:
    """own: the units of `examples`; replay: those of `replay`, mixed in so that they make up `replay_share`."""

    own: Sequence[Unit]
    replay: Sequence[Unit]
    settings: TrainSettings

    def __post_init__(self) -> None:
        share = self.settings.replay_share if self.replay else 0.0
        self.replayed = round(len(self.own) * share / (1 - share))
        self.per_epoch = math.ceil((len(self.own) + self.replayed) / self.settings.batch_size)
        self.updates = self.settings.updates or math.ceil(self.settings.epochs * self.per_epoch)
        self._epoch = -1
        self._batches: list[list[Unit]] = []

    def update(self, number: int) -> list[Unit]:
        """The units of update `number`, counted from 0."""
        epoch, within = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._arrange(epoch)
        return self._batches[within]

    def _arrange(self, epoch: int) -> list[list[Unit]]:
        rng = random.Random(f"{self.settings.seed} epoch {epoch}")
        units = [*self.own, *self._replay_of(epoch)]
        rng.shuffle(units)
        size = self.settings.batch_size
        batches: list[list[Unit]] = []
        for start in range(0, len(units), size * POOL_BATCHES):
            pool = sorted(units[start : start + size * POOL_BATCHES], key=lambda unit: unit.tokens)
            batches += [pool[at : at + size] for at in range(0, len(pool), size)]
        rng.shuffle(batches)
        return batches

    def _replay_of(self, epoch: int) -> list[Unit]:
        """The next stretch of the replayed units, which are gone through in one shuffled order again and again."""
        order = list(range(len(self.replay)))
        random.Random(f"{self.settings.seed} replay").shuffle(order)
        first = epoch * self.replayed
        return [self.replay[order[(first + i) % len(order)]] for i in range(self.replayed)]


def share_of(units: Sequence[Unit], parts: int, part: int) -> list[Unit]:
    """Every `parts`-th unit from `part` on: what one process sees of an update."""
    return list(units[part::parts])

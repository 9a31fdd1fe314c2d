"""Key/value storage of the transformers engine, shaped like the tree that is searched.

Kept: one slab a `Context` segment, [layers, heads, tokens, dim], alive as long as somebody holds the Context.
Running: a prompt that is computed or sampled owns a place among the prefixes, and each of its samples a place among
the tails. The samples of a prompt attend to one copy of it, so neither a new sample nor two samples that part copy
or read the prompt again.
"""

from __future__ import annotations

import heapq
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mcts.model import Context


def round_up(number: int, step: int) -> int:
    return -(-number // step) * step


@dataclass(frozen=True)
class Shape:
    """layers, key/value heads, query heads a key/value head, and the width of a key and of a value."""

    layers: int
    heads: int
    groups: int
    key_dim: int
    value_dim: int


@dataclass(slots=True)
class Kept:
    """What is known of a segment: keys [layers, heads, covered, dim], values alike, and, where the segment was
    computed to its end, the logits [vocabulary] and the value there.

    covered: how many of the segment's tokens have their entries here, from the first on.
    """

    keys: Tensor
    values: Tensor
    logits: Tensor | None = None
    value: float | None = None
    covered: int = field(init=False)

    def __post_init__(self) -> None:
        self.covered = self.keys.shape[2]


class ContextStore:
    """Kept segments by identity of their Context, least recently used first; at most `max_tokens` positions."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.tokens = 0
        self._kept: OrderedDict[weakref.ref[Context], Kept] = OrderedDict()

    def get(self, context: Context) -> Kept | None:
        reference = weakref.ref(context)
        kept = self._kept.get(reference)
        if kept is not None:
            self._kept.move_to_end(reference)
        return kept

    def put(self, context: Context, kept: Kept) -> None:
        self._drop(weakref.ref(context))
        self._kept[weakref.ref(context, self._drop)] = kept
        self.tokens += kept.covered
        while self.tokens > self.max_tokens and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, reference: weakref.ref[Context]) -> None:
        kept = self._kept.pop(reference, None)
        if kept is not None:
            self.tokens -= kept.covered

    def lacking(self, context: Context) -> set[Context]:
        """The last segments of the prompt that are not covered to their ends."""
        found: set[Context] = set()
        for segment in context.segments():
            kept = self._kept.get(weakref.ref(segment))
            if kept is not None and kept.covered == len(segment.token_ids):
                break
            found.add(segment)
        return found

    def chain(self, context: Context) -> tuple[list[Kept], int]:
        """The slabs that cover the prompt from its first token on without a gap, and how many tokens they cover.

        Touches the chain from the end to the root, so that a parent is never evicted before its children.
        """
        chain = [(segment, self.get(segment)) for segment in context.segments()]
        slabs: list[Kept] = []
        for segment, kept in reversed(chain):
            if kept is not None:
                slabs.append(kept)
            if (kept.covered if kept is not None else 0) < len(segment.token_ids):
                break
        return slabs, sum(slab.covered for slab in slabs)


class Block:
    """keys [layers, places, heads, positions, dim] and values alike.

    Grows by copying; starts from zeros, because what a mask hides must still be finite.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.keys = self._zeros(0, 0, shape.key_dim)
        self.values = self._zeros(0, 0, shape.value_dim)

    def _zeros(self, places: int, positions: int, dim: int) -> Tensor:
        size = (self._shape.layers, places, self._shape.heads, positions, dim)
        return torch.zeros(size, dtype=self._dtype, device=self._device)

    @property
    def positions(self) -> int:
        return self.keys.shape[3]

    def reserve(self, places: int, positions: int) -> None:
        """Makes room for `places` places of `positions` positions."""
        have_places, have = self.keys.shape[1], self.positions
        if places <= have_places and positions <= have:
            return
        more = max(have_places, round_up(places + places // 4, 16)) if places > have_places else have_places
        longer = max(have, round_up(positions + positions // 4, 64)) if positions > have else have
        for name, dim in (("keys", self._shape.key_dim), ("values", self._shape.value_dim)):
            grown = self._zeros(more, longer, dim)
            grown[:, :have_places, :, :have] = getattr(self, name)
            setattr(self, name, grown)

    def write(self, layer: int, index: Tensor, keys: Tensor, values: Tensor) -> None:
        """Writes [n, heads, dim] to the flat positions `index` [n · heads] of a layer (see `flat_index`)."""
        for target, new in ((self.keys[layer], keys), (self.values[layer], values)):
            target.view(-1, target.shape[-1]).index_copy_(0, index, new.reshape(index.shape[0], -1))

    def flat_index(self, places: Tensor, positions: Tensor) -> Tensor:
        """Where [place, head, position] of every head stands in a flattened layer; [n], [n] → [n · heads]."""
        heads = torch.arange(self._shape.heads)
        return ((places[:, None] * self._shape.heads + heads) * self.positions + positions[:, None]).flatten()

    def load(self, place: int, slabs: Sequence[Kept], length: int) -> None:
        """Copies slabs, one after another, into the first `length` positions of a place."""
        if length:
            for target, parts in ((self.keys, [s.keys for s in slabs]), (self.values, [s.values for s in slabs])):
                whole = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
                target[:, place, :, :length] = whole[:, :, :length]

    def copy(self, source: int, target: int, length: int) -> None:
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def cut(self, place: int, start: int, end: int) -> Kept:
        """A copy of the positions `start` to `end` of a place."""
        return Kept(self.keys[:, place, :, start:end].clone(), self.values[:, place, :, start:end].clone())


class Places:
    """Numbers of free places, the lowest first, so that those in use stay close together."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 0

    def take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, place: int) -> None:
        heapq.heappush(self._free, place)
        if len(self._free) == self._next:  # nothing is in use
            self._free.clear()
            self._next = 0

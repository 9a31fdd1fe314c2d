"""Key/value storage of the transformers engine: what is kept per context, and the rows being computed.

Kept: one slab a `Context` segment, [layers, heads, tokens, dim], alive as long as somebody holds the Context.
Rows: a rectangle [layers, rows, heads, positions, dim]; a running sequence owns a row.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from mcts.model import Context

LENGTH_STEP = 64  # positions are padded to this, so that a sum over them has the same order in every batch


def round_up(number: int, step: int) -> int:
    return -(-number // step) * step


@dataclass(frozen=True)
class Shape:
    """layers, key/value heads, and the width of a key and of a value."""

    layers: int
    heads: int
    key_dim: int
    value_dim: int


@dataclass
class Kept:
    """What is known of a segment: keys [layers, heads, covered, dim], values alike, and, where the segment was
    computed to its end, the logits [vocabulary] and the value there."""

    keys: Tensor
    values: Tensor
    logits: Tensor | None = None
    value: float | None = None

    @property
    def covered(self) -> int:
        """How many of the segment's tokens have their entries here, from the first on."""
        return self.keys.shape[2]


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

    def covered(self, context: Context) -> int:
        """How many tokens of the prompt have entries, from the first on without a gap.

        Touches the chain from the end to the root, so that a parent is never evicted before its children.
        """
        total = 0
        chain = [(segment, self.get(segment)) for segment in context.segments()]
        for segment, kept in reversed(chain):
            held = kept.covered if kept is not None else 0
            total += held
            if held < len(segment.token_ids):
                break
        return total


class Rows:
    """The rectangle of running rows: keys [layers, rows, heads, positions, dim] and values alike.

    Grows by copying; starts from zeros, because what a mask hides must still be finite. The last position is
    scratch, where padding writes.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.keys = self._zeros(0, 0, shape.key_dim)
        self.values = self._zeros(0, 0, shape.value_dim)

    def _zeros(self, rows: int, positions: int, dim: int) -> Tensor:
        size = (self._shape.layers, rows, self._shape.heads, positions, dim)
        return torch.zeros(size, dtype=self._dtype, device=self._device)

    @property
    def positions(self) -> int:
        return self.keys.shape[3]

    def reserve(self, rows: int, positions: int) -> None:
        """Makes room for `rows` rows of `positions` positions and the scratch position."""
        have_rows, have = self.keys.shape[1], self.positions
        if rows <= have_rows and positions < have:
            return
        new_rows = have_rows if rows <= have_rows else max(rows, min(2 * have_rows, rows + 64))
        new = have if positions < have else round_up(positions + 1, 2 * LENGTH_STEP)
        for name, dim in (("keys", self._shape.key_dim), ("values", self._shape.value_dim)):
            grown = self._zeros(new_rows, new, dim)
            grown[:, :have_rows, :, :have] = getattr(self, name)
            setattr(self, name, grown)

    def load(self, row: int, context: Context, store: ContextStore, length: int) -> None:
        """Copies the first `length` positions of a prompt from its kept segments into a row."""
        at = 0
        for segment in reversed(list(context.segments())):
            kept = store.get(segment)
            if kept is None or at >= length:
                return
            self.keys[:, row, :, at : at + kept.covered] = kept.keys
            self.values[:, row, :, at : at + kept.covered] = kept.values
            at += kept.covered

    def copy(self, source: int, target: int, length: int) -> None:
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def cut(self, row: int, start: int, end: int) -> Kept:
        """A copy of the positions `start` to `end` of a row."""
        return Kept(self.keys[:, row, :, start:end].clone(), self.values[:, row, :, start:end].clone())


class RowCache(Cache):
    """What one forward pass of a transformers model sees of the rows `first` to `first + n`.

    write_at: [n, q] the position each new token is written to. length: how many positions attention looks at.
    """

    def __init__(self, rows: Rows, first: int, write_at: Tensor, length: int) -> None:
        super().__init__(layers=[])
        last = first + write_at.shape[0]
        self._keys, self._values = rows.keys[:, first:last], rows.values[:, first:last]
        self._index = torch.arange(write_at.shape[0], device=write_at.device)
        self._write_at, self._length = write_at, length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Takes [n, heads, q, dim] and returns everything written so far, [n, heads, length, dim]."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._write_at.shape[1] == 1:
            keys[self._index, :, self._write_at[:, 0]] = key_states[:, :, 0]
            values[self._index, :, self._write_at[:, 0]] = value_states[:, :, 0]
        else:
            keys[self._index[:, None], :, self._write_at] = key_states.transpose(1, 2)
            values[self._index[:, None], :, self._write_at] = value_states.transpose(1, 2)
        return keys[:, :, : self._length], values[:, :, : self._length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are always given

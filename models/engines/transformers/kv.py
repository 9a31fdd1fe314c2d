"""Key/value storage of the transformers engine: pages of fixed length, shared by whoever has the same beginning.

Prompts stand in pages; a prompt is a table of them, so its samples and its continuations read the one copy that there
is. Who continues a prompt in the middle of a page writes on in it, or copies this one page where another has written
there before. A running sample has a tail of at most PIECE positions; what is longer moves into pages. The entries of
a finished sample are kept by themselves until a prompt continues it.
"""

from __future__ import annotations

import heapq
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from mcts.model import Context
from models.engines.transformers.prefixes import Beginning, Beginnings

PAGE = 16  # positions
PIECE = 128  # positions over which attention sums at once: whole pages
PAGES = PIECE // PAGE
NOWHERE = 0  # the page for padding: written, and read behind a mask only


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


class Pages:
    """keys, values: for each layer [heads, pages, PAGE, dim]. filled: how many positions of a page are written.

    A page is free when nobody holds it. Starts from zeros, because what a mask hides must still be finite.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.keys = [self._zeros(0, shape.key_dim) for _ in range(shape.layers)]
        self.values = [self._zeros(0, shape.value_dim) for _ in range(shape.layers)]
        self.filled: list[int] = []
        self._holders: list[int] = []
        self._free: list[int] = []
        self.take(1)  # NOWHERE

    def _zeros(self, pages: int, dim: int) -> Tensor:
        return torch.zeros(self._shape.heads, pages, PAGE, dim, dtype=self._dtype, device=self._device)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return len(self.filled) - len(self._free)

    def take(self, count: int, *, run: bool = False) -> list[int]:
        """Empty pages, held once. run: they follow one another, so that no copy is needed to read them as one."""
        found: list[int] = []
        if run:
            found = self._run(count)
        while len(found) < count and self._free and not run:
            found.append(heapq.heappop(self._free))
        fresh = range(len(self.filled), len(self.filled) + count - len(found))
        found += fresh
        self.filled += [0] * len(fresh)
        self._holders += [0] * len(fresh)
        if len(self.filled) > self.keys[0].shape[1]:
            self._grow(round_up(len(self.filled) + len(self.filled) // 4, 64))
        for page in found:
            self.filled[page], self._holders[page] = 0, 1
        return found

    def _run(self, count: int) -> list[int]:
        """`count` free pages in a row, or none."""
        free = sorted(self._free)
        start = 0
        for at, (before, page) in enumerate(pairwise(free), start=1):
            if page != before + 1:
                start = at
            elif at - start + 1 == count:
                found = free[start : at + 1]
                self._free = free[:start] + free[at + 1 :]  # sorted: a heap
                return found
        return []

    def hold(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                heapq.heappush(self._free, page)

    def _grow(self, capacity: int) -> None:
        """Layer by layer, so that little stands in memory twice."""
        for blocks, dim in ((self.keys, self._shape.key_dim), (self.values, self._shape.value_dim)):
            for layer, block in enumerate(blocks):
                grown = self._zeros(capacity, dim)
                grown[:, : block.shape[1]] = block
                blocks[layer] = grown

    def flat_index(self, pages: Tensor, slots: Tensor) -> Tensor:
        """Where every head of a position stands in a flattened layer; [n], [n] → [n · heads]."""
        heads = torch.arange(self._shape.heads) * self.keys[0].shape[1]
        return ((pages[:, None] + heads) * PAGE + slots[:, None]).flatten()

    def write(self, layer: int, index: Tensor, keys: Tensor, values: Tensor) -> None:
        """Writes [n, heads, dim] to the flat positions `index` [n · heads] of a layer (see `flat_index`)."""
        for target, new in ((self.keys[layer], keys), (self.values[layer], values)):
            target.view(-1, target.shape[-1]).index_copy_(0, index, new.reshape(index.shape[0], -1))

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies whole pages."""
        if sources:
            source, target = (torch.tensor(pages, device=self._device) for pages in (sources, targets))
            for block in (*self.keys, *self.values):
                block.index_copy_(1, target, block.index_select(1, source))

    def store(self, pages: np.ndarray, slots: np.ndarray, keys: Tensor, values: Tensor) -> None:
        """Writes entries [layers, heads, n, dim] to n slots of pages."""
        index = self.flat_index(torch.from_numpy(pages), torch.from_numpy(slots)).to(self._device)
        for layer in range(self._shape.layers):
            self.write(layer, index, keys[layer].transpose(0, 1), values[layer].transpose(0, 1))

    def load(self, pages: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The entries [layers, heads, n · PAGE, dim] of pages."""
        index = torch.tensor(pages, device=self._device)
        keys, values = (
            torch.stack([block.index_select(1, index).flatten(1, 2) for block in blocks])
            for blocks in (self.keys, self.values)
        )
        return keys, values


@dataclass(slots=True)
class Kept:
    """What is known of a segment: its entries, and, where it was computed to its end, the logits [vocabulary] and the
    value there.

    covered: how many of the segment's tokens have their entries, from the first on. pages: those that they are in (the
    first one begins with entries of the segments before), or entries: keys and values [layers, heads, covered, dim].
    beginning: of a root, what it holds of the beginnings that questions share.
    """

    covered: int
    pages: tuple[int, ...] = ()
    entries: tuple[Tensor, Tensor] | None = None
    logits: Tensor | None = None
    value: float | None = None
    beginning: Beginning | None = None


@dataclass(slots=True)
class Chain:
    """What is kept of a prompt from its first token on without a gap: pages for the first `paged` positions (there
    may be empty ones behind), then entries that are in no page yet; `covered` positions in all."""

    pages: list[int] = field(default_factory=list)
    paged: int = 0
    loose: list[Kept] = field(default_factory=list)
    covered: int = 0


class ContextStore:
    """Kept segments by identity of their Context, least recently used first, at most `max_tokens` positions; and the
    beginnings of roots by content."""

    def __init__(self, pages: Pages, max_tokens: int, max_idle_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.tokens = 0
        self._pages = pages
        self._kept: OrderedDict[weakref.ref[Context], Kept] = OrderedDict()
        self._dropped: deque[Kept] = deque()
        self._beginnings = Beginnings(PAGE, max_idle_tokens, pages.hold, pages.release)

    def get(self, context: Context) -> Kept | None:
        reference = weakref.ref(context)
        kept = self._kept.get(reference)
        if kept is not None:
            self._kept.move_to_end(reference)
        return kept

    def put(self, context: Context, kept: Kept) -> None:
        self._pages.hold(kept.pages)
        if context.parent is None and kept.pages and kept.covered == len(context.token_ids):
            kept.beginning = self._beginnings.add(context.token_ids, kept.pages)
        self._drop(weakref.ref(context))
        self._kept[weakref.ref(context, self._drop)] = kept
        self.tokens += kept.covered
        while self.tokens > self.max_tokens and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, reference: weakref.ref[Context]) -> None:
        """Any thread may come here, whichever lets a Context go; `collect` frees the pages."""
        kept = self._kept.pop(reference, None)
        if kept is not None:
            self.tokens -= kept.covered
            self._dropped.append(kept)

    def collect(self) -> None:
        """Frees the pages of what was dropped; for the thread that works with them."""
        while self._dropped:
            kept = self._dropped.popleft()
            if kept.beginning is not None:
                self._beginnings.leave(kept.beginning)
            self._pages.release(kept.pages)

    def lacking(self, context: Context) -> set[Context]:
        """The last segments of the prompt that are not covered to their ends."""
        found: set[Context] = set()
        for segment in context.segments():
            kept = self._kept.get(weakref.ref(segment))
            if kept is not None and kept.covered == len(segment.token_ids):
                break
            found.add(segment)
        return found

    def known(self, root: Context) -> int:
        """How many tokens of a root that is not kept begin another one."""
        return self._beginnings.match(root.token_ids)[0]

    def chain(self, context: Context) -> Chain:
        """Touches what it finds from the end to the root, so that a parent is never evicted before its children."""
        segments = [(segment, self.get(segment)) for segment in context.segments()]
        found, start = Chain(), 0
        for segment, kept in reversed(segments):
            if kept is not None and kept.pages:
                if found.loose:
                    break
                found.pages[start // PAGE :] = kept.pages
                found.paged += kept.covered
            elif kept is not None and kept.covered:
                found.loose.append(kept)
            found.covered += kept.covered if kept is not None else 0
            start += len(segment.token_ids)
            if found.covered < start:
                break
        root = segments[-1][0]
        if found.covered < len(root.token_ids):
            matched, pages = self._beginnings.match(root.token_ids)
            if matched > found.covered:
                return Chain(pages, matched, [], matched)
        return found


class Tails:
    """The last positions of the running samples: keys [layers, places, heads, PIECE, dim] and values alike.

    Grows by copying; starts from zeros, because what a mask hides must still be finite.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.keys = self._zeros(0, shape.key_dim)
        self.values = self._zeros(0, shape.value_dim)

    @property
    def blocks(self) -> tuple[Tensor, Tensor]:
        return self.keys, self.values

    def _zeros(self, places: int, dim: int) -> Tensor:
        size = (self._shape.layers, places, self._shape.heads, PIECE, dim)
        return torch.zeros(size, dtype=self._dtype, device=self._device)

    def reserve(self, places: int) -> None:
        have = self.keys.shape[1]
        if places > have:
            for name, dim in (("keys", self._shape.key_dim), ("values", self._shape.value_dim)):
                grown = self._zeros(round_up(places + places // 4, 16), dim)
                grown[:, :have] = getattr(self, name)
                setattr(self, name, grown)

    def write(self, layer: int, index: Tensor, keys: Tensor, values: Tensor) -> None:
        """Writes [n, heads, dim] to the flat positions `index` [n · heads] of a layer (see `flat_index`)."""
        for target, new in ((self.keys[layer], keys), (self.values[layer], values)):
            target.view(-1, target.shape[-1]).index_copy_(0, index, new.reshape(index.shape[0], -1))

    def flat_index(self, positions: Tensor) -> Tensor:
        """Where position `positions[i]` of every head of place i stands in a flattened layer; [n] → [n · heads]."""
        heads = self._shape.heads
        rows = torch.arange(len(positions) * heads).view(-1, heads)
        return (rows * PIECE + positions[:, None]).flatten()

    def copy(self, source: int, target: int, length: int) -> None:
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def cut(self, place: int, length: int) -> tuple[Tensor, Tensor]:
        """A copy of the first `length` positions of a place, [layers, heads, length, dim]."""
        return self.keys[:, place, :, :length].clone(), self.values[:, place, :, :length].clone()

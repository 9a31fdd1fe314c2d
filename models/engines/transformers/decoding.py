"""Attention of the running samples, one position each: to the pages of their prompts, to pages of their own, to their
tails. What many samples have in common is read once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.engines.transformers.kv import PAGES, PIECE, Pages, Tails, round_up
from models.engines.transformers.pieces import Paged, Piece, Sampled, query_step, weighted

TAIL_STEP = 32
TRUNKS = 4  # at most so many in a pass
TRUNK_PIECES = 3  # and at least so long: a shorter one is not worth products of its own


@dataclass(frozen=True)
class _Trunk:
    """Pages from `first` on, `pieces` pieces, with which the prompts of `rows` begin; rows: padded to whole steps."""

    first: int
    pieces: int
    count: int
    rows: Tensor

    def read(self, block: Tensor) -> Tensor:
        """[heads, pages, PAGE, dim] → [heads, positions, dim], as it stands."""
        return block[:, self.first : self.first + self.pieces * PAGES].flatten(1, 2)


def _trunks(prompts: Sequence[Paged], rows: Sequence[Sequence[int]], step: int, device: torch.device) -> list[_Trunk]:
    """What begins the prompts of many rows; rows: those of each prompt."""
    families: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        families.setdefault(prompt.pages[0], []).append(number)
    found = []
    for first, members in families.items():
        pieces = min(prompts[number].run for number in members)
        for number in members[1:]:
            one, other = prompts[members[0]].pieces, prompts[number].pieces
            while one[:pieces] != other[:pieces]:
                pieces -= 1
        if pieces >= TRUNK_PIECES:
            mine = sorted(row for number in members for row in rows[number])
            found.append((pieces * len(mine), first, pieces, mine))
    largest = sorted(found, reverse=True)[:TRUNKS]
    return [
        _Trunk(first, pieces, len(mine), torch.tensor(mine + mine[:1] * (-len(mine) % step), device=device))
        for _, first, pieces, mine in largest
    ]


class _Items:
    """Pieces with up to `slots` samples each: what is read once for all of them.

    count: pieces times how often one is needed. spread: where the queries of each slot stand among [sample, head];
    pieces of a sample: `gather` [samples · heads · groups, most pieces] among the products [head, item, slot, group],
    `back` the other way, for its weights.
    """

    def __init__(self, pieces: Sequence[Sequence[Piece]], heads: int, groups: int, device: torch.device) -> None:
        """pieces: those of each sample."""
        ids = {piece: number for number, piece in enumerate(sorted({one for own in pieces for one in own}))}
        rows = np.repeat(np.arange(len(pieces)), [len(own) for own in pieces])
        which = np.array([ids[one] for own in pieces for one in own])
        columns = np.concatenate([np.arange(len(own)) for own in pieces])
        users = np.bincount(which)
        self.slots = _slots(users, query_step(groups))
        copies = -(-users // self.slots)
        self.count = int(copies.sum())
        order = np.argsort(which, kind="stable")
        rank = np.empty_like(which)
        rank[order] = np.arange(len(which)) - np.repeat(np.cumsum(users) - users, users)
        first = (np.cumsum(copies) - copies)[which]
        slot = (first + rank // self.slots) * self.slots + rank % self.slots
        pages = np.repeat(np.array(list(ids)), copies, axis=0).ravel()
        consecutive = heads == 1 and pages[-1] - pages[0] == len(pages) - 1 and bool((np.diff(pages) == 1).all())
        self._span = (int(pages[0]), int(pages[-1]) + 1) if consecutive else None
        self._pages = torch.from_numpy(pages).to(device)
        total, most = self.count * self.slots, max(len(own) for own in pieces)
        self.most = most
        by_head = np.arange(heads)[:, None]
        slot_row, slot_column = np.zeros(total, int), np.zeros(total, int)
        slot_row[slot], slot_column[slot] = rows, columns
        self.spread = torch.from_numpy((slot_row * heads + by_head).ravel()).to(device)
        group = np.arange(groups)
        back = ((slot_row * heads + by_head)[:, :, None] * groups + group) * most + slot_column[:, None]
        self.back = torch.from_numpy(back.ravel()).to(device)  # [heads · items · slots · groups]
        gather = np.zeros((len(pieces), heads, groups, most), int)
        gather[rows, :, :, columns] = (by_head * total + slot)[:, :, None].transpose(1, 0, 2) * groups + group
        self.gather = torch.from_numpy(gather.ravel()).to(device)
        lengths = np.array([len(own) for own in pieces])
        self.bags = gather, lengths

    def read(self, block: Tensor) -> Tensor:
        """[heads, pages, PAGE, dim] → [heads · items, PIECE, dim]."""
        span = self._span
        chosen = block.index_select(1, self._pages) if span is None else block[:, span[0] : span[1]]
        return chosen.reshape(-1, PIECE, block.shape[-1])


def _slots(users: np.ndarray, step: int) -> int:
    """How many samples an item has room for: little reading, few empty slots."""
    choices: list[int] = [step * 2**power for power in range(6)]
    return min(choices, key=lambda slots: float((-(-users // slots)).sum()) * (4 + slots))


class Layout:
    """What running samples read besides their tails, as tables: the same until one comes, goes or fills a piece."""

    def __init__(self, samples: Sequence[Sampled], pages: Pages, groups: int) -> None:
        self.groups = groups
        self.heads = pages.keys[0].shape[0]
        self._samples = [(sample.prompt, sample.own) for sample in samples]
        device = self.device = pages.keys[0].device
        self.count = len(samples)
        self.lengths = np.array([sample.prompt.length + PIECE * len(sample.own) for sample in samples])
        numbers: dict[Paged, int] = {}
        rows: list[list[int]] = []
        for row, sample in enumerate(samples):
            number = numbers.setdefault(sample.prompt, len(rows))
            if number == len(rows):
                rows.append([])
            rows[number].append(row)
        self.trunks = _trunks(list(numbers), rows, query_step(groups), device)
        skipped = [0] * self.count
        for trunk in self.trunks:
            for row in trunk.rows.tolist():
                skipped[row] = trunk.pieces
        pieces = [[*sample.prompt.pieces[skip:], *sample.own] for sample, skip in zip(samples, skipped, strict=True)]
        self.trunk_width = max((trunk.pieces for trunk in self.trunks), default=0) * PIECE
        self.items = _Items(pieces, self.heads, groups, device) if any(pieces) else None
        self.item_width = self.items.most * PIECE if self.items is not None else 0
        self.seen = self._seen(samples, skipped)
        self.bag, self.offsets = self._bags()

    def fits(self, samples: Sequence[Sampled]) -> bool:
        """Whether these are the samples it was made for, with other tails."""
        return self.count == len(samples) and all(
            prompt is sample.prompt and own == sample.own
            for (prompt, own), sample in zip(self._samples, samples, strict=True)
        )

    def _seen(self, samples: Sequence[Sampled], skipped: Sequence[int]) -> np.ndarray:
        """Which trunk and item positions a sample attends to, [n, positions]."""
        in_trunk = np.array(skipped)[:, None] * PIECE
        lengths = np.array([sample.prompt.length for sample in samples])[:, None]
        whole = np.array([len(sample.prompt.pieces) for sample in samples])[:, None] * PIECE - in_trunk
        own = np.array([len(sample.own) for sample in samples])[:, None] * PIECE
        trunk_at, item_at = np.arange(self.trunk_width), np.arange(self.item_width)
        return np.concatenate(
            [
                trunk_at < np.minimum(in_trunk, lengths),
                (item_at < np.minimum(lengths - in_trunk, whole)) | ((item_at >= whole) & (item_at < whole + own)),
            ],
            axis=1,
        )

    def _bags(self) -> tuple[Tensor, Tensor]:
        """Which products make up each of [n · heads · groups] sums, in the order of the positions: indices into those
        of the trunks [n · heads · groups], if there are any, followed by those of the items; and where each begins."""
        outer = self.count * self.heads * self.groups
        columns, lengths = [], np.zeros(self.count, int)
        if self.trunks:
            columns.append(np.arange(outer)[:, None])
            lengths += 1
        if self.items is not None:
            gather, item_lengths = self.items.bags
            columns.append(gather.reshape(outer, -1) + (outer if self.trunks else 0))
            lengths += item_lengths
        index = np.concatenate(columns, axis=1)
        each = np.repeat(lengths, self.heads * self.groups)
        inside = np.arange(index.shape[1]) < each[:, None]
        offsets = np.cumsum(each) - each
        return torch.from_numpy(index[inside]).to(self.device), torch.from_numpy(offsets).to(self.device)


class Decoding:
    """Attention of the running samples; row i has tail place i."""

    def __init__(self, samples: Sequence[Sampled], layout: Layout, pages: Pages, tails: Tails) -> None:
        self._pages, self._tails, self._layout = pages, tails, layout
        self.count = layout.count
        tail = np.array([sample.tail for sample in samples])
        self.positions = layout.lengths + tail
        self._tail_width = round_up(int(tail.max()) + 1, TAIL_STEP)
        seen = np.concatenate([layout.seen, np.arange(self._tail_width) <= tail[:, None]], axis=1)
        mask = torch.from_numpy(np.where(seen, np.float32(0), np.float32(-np.inf)))
        self._mask = mask[:, None, None].to(layout.device)  # [n, 1, 1, trunk + item + tail positions]
        self._write_at = tails.flat_index(torch.from_numpy(tail)).to(layout.device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self._tails.write(layer, self._write_at, keys, values)

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """query [n, heads · groups, dim] → [n, heads · groups · value dim]."""
        layout = self._layout
        n, heads, groups = self.count, layout.heads, layout.groups
        query = query.contiguous().view(n, heads, groups, -1)
        scores = self._trunk_scores(layer, query) if layout.trunks else []
        if layout.items is not None:
            scores.append(self._item_scores(layer, query))
        tail_keys, tail_values = (
            block[layer, :n].flatten(0, 1)[:, : self._tail_width] for block in self._tails.blocks
        )  # [n · heads, tail width, dim]
        tail = torch.bmm(query.view(n * heads, groups, -1), tail_keys.mT)
        scores.append(tail.view(n, heads, groups, -1))
        weights = torch.add(self._mask, torch.cat(scores, dim=-1), alpha=scaling).softmax(-1).to(query.dtype)
        parts = [self._trunk_products(layer, weights)] if layout.trunks else []
        if layout.items is not None:
            parts.append(self._item_products(layer, weights))
        products = torch.cat(parts) if len(parts) > 1 else parts[0]
        out = functional.embedding_bag(layout.bag, products, layout.offsets, mode="sum")  # one after another
        last = weights[..., layout.trunk_width + layout.item_width :].reshape(n * heads, groups, -1)
        return torch.baddbmm(out.view(n * heads, groups, -1), last, tail_values).view(n, -1)

    # --- trunks

    def _trunk_scores(self, layer: int, query: Tensor) -> list[Tensor]:
        """[n, heads, groups, trunk positions], in a list."""
        found = []
        for trunk in self._layout.trunks:
            together = query.index_select(0, trunk.rows).transpose(0, 1).flatten(1, 2)  # [heads, rows · groups, dim]
            scores = torch.bmm(together, trunk.read(self._pages.keys[layer]).mT)
            found.append(scores.view(self._layout.heads, -1, self._layout.groups, scores.shape[-1]).transpose(0, 1))
        if len(found) == 1 and self._layout.trunks[0].count == self.count:
            return [found[0][: self.count]]
        whole = query.new_zeros(self.count, self._layout.heads, self._layout.groups, self._layout.trunk_width)
        for trunk, scores in zip(self._layout.trunks, found, strict=True):
            whole[trunk.rows[: trunk.count], ..., : scores.shape[-1]] = scores[: trunk.count]
        return [whole]

    def _trunk_products(self, layer: int, weights: Tensor) -> Tensor:
        """[n · heads · groups, value dim]"""
        values = self._pages.values[layer]
        whole = weights.new_zeros(self.count, self._layout.heads, self._layout.groups, values.shape[-1])
        for trunk in self._layout.trunks:
            part = weights[..., : trunk.pieces * PIECE].index_select(0, trunk.rows).transpose(0, 1).flatten(1, 2)
            out = weighted(part, trunk.read(values)).view(self._layout.heads, -1, self._layout.groups, values.shape[-1])
            whole.index_copy_(0, trunk.rows[: trunk.count], out.transpose(0, 1)[: trunk.count])
        return whole.view(-1, values.shape[-1])

    # --- items

    def _item_scores(self, layer: int, query: Tensor) -> Tensor:
        """[n, heads, groups, item positions]"""
        items = self._layout.items
        assert items is not None
        spread = query.view(self.count * self._layout.heads, -1).index_select(0, items.spread)
        keys = items.read(self._pages.keys[layer])
        scores = torch.bmm(spread.view(keys.shape[0], items.slots * self._layout.groups, -1), keys.mT)
        found = scores.view(-1, PIECE).index_select(0, items.gather)
        return found.view(self.count, self._layout.heads, self._layout.groups, self._layout.item_width)

    def _item_products(self, layer: int, weights: Tensor) -> Tensor:
        """[heads · items · slots · groups, value dim]"""
        items = self._layout.items
        assert items is not None
        at = self._layout.trunk_width
        mine = weights[..., at : at + self._layout.item_width].reshape(-1, PIECE)
        values = items.read(self._pages.values[layer])
        spread = mine.index_select(0, items.back).view(values.shape[0], -1, PIECE)
        return torch.bmm(spread, values).view(-1, values.shape[-1])

"""Attention of prompts that are being computed, to the pages that they share and to their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.engines.transformers.kv import NOWHERE, PAGE, PAGES, PIECE, Pages, round_up
from models.engines.transformers.pieces import TOKEN_STEP, Prompted, query_step, weighted

PART = 256  # prompt tokens whose attention is computed at a time


class Prefill:
    """The tables of some prompts of similar length. In attention each is padded on the right to the longest; elsewhere
    their `count` tokens stand one behind another."""

    def __init__(self, prompts: Sequence[Prompted], pages: Pages, groups: int) -> None:
        self._pages, self._rows = pages, len(prompts)
        device = pages.keys[0].device
        lengths = np.array([len(prompt.token_ids) for prompt in prompts])
        self.count, self._tokens = int(lengths.sum()), round_up(int(lengths.max()), query_step(groups))
        starts = np.array([prompt.start for prompt in prompts])
        positions = starts[:, None] + np.arange(self._tokens)  # [n, q]
        width = round_up(int(positions.max()) + 1, PIECE)
        most = width // PAGE
        table = np.full((self._rows, most), NOWHERE)
        for row, prompt in enumerate(prompts):
            mine = prompt.prompt.pages[:most]
            table[row, : len(mine)] = mine
        same = (table == table[0, 0] + np.arange(most)).all(0)
        shared = int(same.argmin()) if not same.all() else most
        self._first, self._shared = int(table[0, 0]), shared // PAGES * PIECE
        self._table = torch.from_numpy(table[:, self._shared // PAGE :].ravel()).to(device)
        unseen = torch.from_numpy(np.arange(width) > positions[:, :, None])
        mask = torch.zeros(unseen.shape).masked_fill_(unseen, -torch.inf)
        self._mask = mask[:, :, None].to(device)  # [n, q, 1, width]
        real = np.arange(self._tokens) < lengths[:, None]
        self.positions = positions[real]
        self.ends = np.cumsum(lengths) - 1
        self._spread = self._back = None
        if self.count < real.size:
            self._spread = torch.from_numpy(np.where(real, np.cumsum(real).reshape(real.shape) - 1, 0).ravel()).to(
                device
            )
            self._back = torch.from_numpy(np.flatnonzero(real)).to(device)
        row_of = np.repeat(np.arange(self._rows), lengths)
        pages_of = torch.from_numpy(table[row_of, self.positions // PAGE])
        self._write_at = pages.flat_index(pages_of, torch.from_numpy(self.positions % PAGE)).to(device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self._pages.write(layer, self._write_at, keys, values)

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """query [count, heads · groups, dim] → [count, heads · groups · value dim]."""
        keys, values = self._read(self._pages.keys[layer]), self._read(self._pages.values[layer])
        heads, n = self._pages.keys[layer].shape[0], self._rows
        if self._spread is not None:
            query = query.index_select(0, self._spread)
        query = query.view(n, self._tokens, heads, query.shape[1] // heads, -1)
        product = in_pieces if query.device.type == "cpu" else fused
        out = product(query.permute(2, 0, 1, 3, 4), keys, values, self._mask, scaling)  # [heads, n, q, groups, dim]
        out = out.permute(1, 2, 0, 3, 4).reshape(n * self._tokens, -1)
        return out if self._back is None else out.index_select(0, self._back)

    def _read(self, block: Tensor) -> list[Tensor]:
        """The positions that all prompts share, [heads, 1, positions, dim], and the others, [heads, n, ...]."""
        parts = []
        if self._shared:
            shared = block[:, self._first : self._first + self._shared // PAGE]
            parts.append(shared.flatten(1, 2)[:, None])
        if len(self._table):
            chosen = block.index_select(1, self._table)
            parts.append(chosen.view(block.shape[0], self._rows, -1, block.shape[-1]))
        return parts


def in_pieces(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor, scaling: float) -> Tensor:
    """Attention of queries [heads, n, q, groups, dim], some of them at a time, by sums of fixed pieces. keys, values:
    consecutive parts [heads, n or 1, positions, dim]; mask [n, q, 1, positions]."""
    heads, n, tokens, groups, _ = query.shape
    step = max(TOKEN_STEP, PART // n // TOKEN_STEP * TOKEN_STEP)
    parts = []
    for at in range(0, tokens, step):
        part = query[:, :, at : at + step]  # [heads, n, q, groups, dim]
        shape = (heads, n, part.shape[2], groups, -1)
        scores = torch.cat([torch.bmm(_queries(part, k), k.flatten(0, 1).mT).view(shape) for k in keys], dim=-1)
        weights = torch.add(mask[:, at : at + step], scores, alpha=scaling).softmax(-1).to(query.dtype)
        out, first = None, 0
        for one in values:
            last = first + one.shape[2]
            start = None if out is None else out.view(heads * one.shape[1], -1, one.shape[-1])
            out = weighted(_queries(weights[..., first:last], one), one.flatten(0, 1), start)
            first = last
        assert out is not None
        parts.append(out.view(shape))
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def _queries(rows: Tensor, entries: Tensor) -> Tensor:
    """[heads, n, q, groups, k] as a batch for entries [heads, n or 1, ...]: [heads · n, q · groups, k], or
    [heads, n · q · groups, k]."""
    heads, n = entries.shape[:2]
    return rows.reshape(heads * n, -1, rows.shape[-1])


def fused(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor, scaling: float) -> Tensor:
    """The same by the fused kernel, the groups on the query axis."""
    heads, n, tokens, groups, _ = query.shape
    key, value = (
        torch.cat([part.expand(-1, n, -1, -1) for part in parts], dim=2).transpose(0, 1) for parts in (keys, values)
    )
    mask = mask[:, None].expand(n, 1, tokens, groups, -1).flatten(2, 3).to(query.dtype)
    rows = query.transpose(0, 1).flatten(2, 3)  # [n, heads, q · groups, dim]
    out = functional.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return out.view(n, heads, tokens, groups, -1).transpose(0, 1)

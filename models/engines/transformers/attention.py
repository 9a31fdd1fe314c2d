"""One pass of new tokens through a network, and attention over tree-shaped storage.

The tokens of a pass stand in one row: first those of the running samples, one each, then the prompts that are being
computed. A sample attends to the prefix it shares with its siblings and to its own tail; a prompt to its own prefix.

On a CPU the arithmetic of a token does not depend on what else is in the pass: the number of tokens is padded to 8 (and
to 16 at least), positions to multiples of 32, queries that share a prefix to 4, and sums over positions are made in
pieces of 128 (libraries divide longer sums at places that depend on their length).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.engines.transformers.kv import Block, round_up

TOKEN_STEP = 8
LEAST_TOKENS = 16  # products of fewer columns are summed in another order
POSITION_STEP = 32
PIECE = 128
SHARED_QUERY_STEP = 4


@dataclass(frozen=True)
class Sampled:
    """A running sample: the place of its prompt, the prompt's length, the length of its tail, the token to feed."""

    prefix: int
    prefix_length: int
    tail_length: int
    token: int


@dataclass(frozen=True)
class Prompted:
    """A prompt whose positions from `start` on are computed in a prefix place."""

    prefix: int
    start: int
    token_ids: Sequence[int]


class _Decoding:
    """The tables of the running samples; row i has tail place i."""

    def __init__(self, samples: Sequence[Sampled], prefixes: Block, tails: Block, groups: int) -> None:
        self._prefixes, self._tails, self._groups = prefixes, tails, groups
        device = prefixes.keys.device
        self.count = len(samples)
        heads = prefixes.keys.shape[2]
        self.places = [sample.prefix for sample in samples]
        prefix_lengths = torch.tensor([sample.prefix_length for sample in samples])
        tail_lengths = torch.tensor([sample.tail_length for sample in samples])
        self._width = min(round_up(int(prefix_lengths.max()), POSITION_STEP), prefixes.positions)
        self._tail_width = min(round_up(int(tail_lengths.max()) + 1, POSITION_STEP), tails.positions)
        seen = torch.cat(
            [
                torch.arange(self._width) < prefix_lengths[:, None],
                torch.arange(self._tail_width) <= tail_lengths[:, None],
            ],
            dim=1,
        )  # [n, prefix width + tail width]
        mask = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        self._mask = mask.repeat_interleave(heads, 0)[:, None].to(device)  # [n · heads, 1, width + tail width]
        self._write_at = tails.flat_index(torch.arange(self.count), tail_lengths).to(device)
        self._shared = self._plan_sharing(heads, device)

    def _plan_sharing(self, heads: int, device: torch.device) -> Tensor | None:
        """Where each sample's queries stand in [prefix, head, sample of the prefix]; None: sample i has prefix i
        alone, and nothing needs to be moved."""
        step = SHARED_QUERY_STEP // math.gcd(self._groups, SHARED_QUERY_STEP)
        if step == 1 and self.places == list(range(self.count)):
            self._prefix_count, self._per_prefix = self.count, 1
            return None
        seen: dict[int, int] = {}
        order = []
        for place in self.places:
            order.append(seen.get(place, 0))
            seen[place] = order[-1] + 1
        self._prefix_count = max(self.places) + 1
        self._per_prefix = round_up(max(seen.values()), step)
        at = (torch.tensor(self.places)[:, None] * heads + torch.arange(heads)) * self._per_prefix
        return (at + torch.tensor(order)[:, None]).flatten().to(device)  # [n · heads]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self._tails.write(layer, self._write_at, keys, values)

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """query [n, heads · groups, dim] → [n, heads · groups · value dim]."""
        heads, dim = self._prefixes.keys.shape[2], query.shape[-1]
        prefix_keys, prefix_values = (
            self._prefix(self._prefixes.keys[layer]),
            self._prefix(self._prefixes.values[layer]),
        )
        tail_keys, tail_values = self._tail(self._tails.keys[layer]), self._tail(self._tails.values[layer])
        rows = self.count * heads
        query = query.reshape(rows, self._groups, dim)
        scores = torch.cat(
            [self._share(query, lambda q: torch.bmm(q, prefix_keys.mT)), torch.bmm(query, tail_keys.mT)], dim=-1
        )  # [rows, groups, width + tail width]
        weights = torch.add(self._mask, scores, alpha=scaling).softmax(-1).to(query.dtype)
        out = self._share(weights[:, :, : self._width], lambda w: _weighted(w, prefix_values))
        out = _weighted(weights[:, :, self._width :], tail_values, out)
        return out.reshape(self.count, -1)

    def _prefix(self, block: Tensor) -> Tensor:
        return block[: self._prefix_count].flatten(0, 1)[:, : self._width]  # [prefixes · heads, width, dim]

    def _tail(self, block: Tensor) -> Tensor:
        return block[: self.count].flatten(0, 1)[:, : self._tail_width]  # [rows, tail width, dim]

    def _share(self, entries: Tensor, product: object) -> Tensor:
        """Applies a product with what a prefix holds to the entries [rows, groups, k] of all of its samples at once."""
        assert callable(product)
        rows, groups, inner = entries.shape
        if self._shared is None:
            return product(entries)  # type: ignore[no-any-return]
        heads = rows // self.count
        together = entries.new_zeros(self._prefix_count * heads * self._per_prefix, groups, inner)
        together.index_copy_(0, self._shared, entries)
        out = product(together.view(self._prefix_count * heads, self._per_prefix * groups, inner))
        return out.view(together.shape[0], groups, -1).index_select(0, self._shared)  # type: ignore[no-any-return]


def _weighted(weights: Tensor, values: Tensor, start: Tensor | None = None) -> Tensor:
    """start + weights [b, m, t] @ values [b, t, dim], summed in pieces of fixed length."""
    out = start
    piece = PIECE if values.device.type == "cpu" else values.shape[1]
    for at in range(0, values.shape[1], piece):
        part, entries = weights[:, :, at : at + piece], values[:, at : at + piece]
        out = torch.bmm(part, entries) if out is None else torch.baddbmm(out, part, entries)
    assert out is not None
    return out


class _Prefill:
    """The tables of some prompts of similar length; each is padded on the right to the longest."""

    def __init__(self, prompts: Sequence[Prompted], prefixes: Block) -> None:
        self._prefixes = prefixes
        device = prefixes.keys.device
        self.count, self.tokens = len(prompts), prefill_tokens(prompts)
        places = torch.tensor([prompt.prefix for prompt in prompts])
        starts = torch.tensor([prompt.start for prompt in prompts])
        self.positions = starts[:, None] + torch.arange(self.tokens)  # [n, q]
        self._width = min(round_up(int(self.positions.max()) + 1, POSITION_STEP), prefixes.positions)
        unseen = torch.arange(self._width) > self.positions[:, :, None]
        mask = torch.zeros(unseen.shape, dtype=prefixes.keys.dtype).masked_fill_(unseen, -torch.inf)
        self._mask = mask[:, None, :, None].to(device)  # [n, 1, q, 1, width]
        index = prefixes.flat_index(places.repeat_interleave(self.tokens), self.positions.flatten())
        self._write_at, self._places = index.to(device), places.to(device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self._prefixes.write(layer, self._write_at, keys, values)

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """query [n · q, heads · groups, dim] → [n · q, heads · groups · value dim]."""
        keys = self._prefixes.keys[layer][:, :, : self._width].index_select(0, self._places)  # [n, heads, width, dim]
        values = self._prefixes.values[layer][:, :, : self._width].index_select(0, self._places)
        heads = keys.shape[1]
        query = query.view(self.count, self.tokens, heads, query.shape[1] // heads, -1).transpose(1, 2)
        product = _in_pieces if query.device.type == "cpu" else _fused
        out = product(query, keys, values, self._mask, scaling)  # [n, heads, q, groups, value dim]
        return out.transpose(1, 2).reshape(self.count * self.tokens, -1)


def _in_pieces(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attention of queries [n, heads, q, groups, dim], some of them at a time, by sums of fixed pieces."""
    n, heads, tokens, groups, _ = query.shape
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    parts = []
    for at in range(0, tokens, PIECE):
        part = query[:, :, at : at + PIECE].reshape(n * heads, -1, query.shape[-1])  # [n · heads, q · groups, dim]
        scores = torch.bmm(part, keys.mT).view(n, heads, -1, groups, keys.shape[1])
        weights = torch.add(mask[:, :, at : at + PIECE], scores, alpha=scaling).softmax(-1)
        parts.append(
            _weighted(weights.view(n * heads, -1, keys.shape[1]), values).view(n, heads, -1, groups, values.shape[-1])
        )
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def _fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """The same by the fused kernel, the groups on the query axis."""
    n, heads, tokens, groups, _ = query.shape
    mask = mask.expand(n, 1, tokens, groups, -1).flatten(2, 3)
    out = functional.scaled_dot_product_attention(query.flatten(2, 3), keys, values, attn_mask=mask, scale=scaling)
    return out.view(n, heads, tokens, groups, -1)


def prefill_tokens(prompts: Sequence[Prompted]) -> int:
    """How many tokens of each prompt a common block has."""
    return round_up(max(len(prompt.token_ids) for prompt in prompts), TOKEN_STEP)


class Pass:
    """New tokens and what they attend to. ids, positions: [N]. ends: [m] the tokens whose logits are wanted, those of
    the samples first, then those of the prompts, padded to a multiple of 8 with token 0;
    of these the first `wanted` count. longest: no position is as high."""

    def __init__(
        self,
        samples: Sequence[Sampled],
        blocks: Sequence[Sequence[Prompted]],
        prefixes: Block,
        tails: Block,
        groups: int,
    ) -> None:
        """groups: query heads a key/value head. Room in the blocks must have been reserved."""
        device = prefixes.keys.device
        ids = [sample.token for sample in samples]
        positions = [sample.prefix_length + sample.tail_length for sample in samples]
        self._decoding = _Decoding(samples, prefixes, tails, groups) if samples else None
        self._decoded = round_up(len(samples), TOKEN_STEP)
        ids += [0] * (self._decoded - len(samples))
        positions += [0] * (self._decoded - len(samples))
        ends = list(range(len(samples)))
        self._prefills = []
        for prompts in blocks:
            prefill = _Prefill(prompts, prefixes)
            self._prefills.append(prefill)
            for prompt in prompts:
                ends.append(len(ids) + len(prompt.token_ids) - 1)
                ids += [*prompt.token_ids, *[0] * (prefill.tokens - len(prompt.token_ids))]
            positions += prefill.positions.flatten().tolist()
        self._empty = max(0, LEAST_TOKENS - len(ids))
        ids += [0] * self._empty
        positions += [0] * self._empty
        self.wanted, self.longest = len(ends), max(positions) + 1
        ends += [0] * (round_up(len(ends), TOKEN_STEP) - len(ends))
        self.ids, self.positions, self.ends = (torch.tensor(x, device=device) for x in (ids, positions, ends))

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Stores the new entries of a layer and attends. query [N, query heads, dim], keys and values
        [N, heads, dim] → [N, query heads · value dim]."""
        parts = []
        if self._decoding is not None:
            count = self._decoding.count
            self._decoding.write(layer, keys[:count], values[:count])
            out = self._decoding.attend(layer, query[:count], scaling)
            parts.append(functional.pad(out, (0, 0, 0, self._decoded - count)) if count < self._decoded else out)
        at = self._decoded
        for prefill in self._prefills:
            to = at + prefill.count * prefill.tokens
            prefill.write(layer, keys[at:to], values[at:to])
            parts.append(prefill.attend(layer, query[at:to], scaling))
            at = to
        if self._empty:
            parts.append(query.new_zeros(self._empty, parts[0].shape[1]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

"""One pass of new tokens through a network, and attention over pages that prompts share.

The tokens of a pass stand in one row: first those of the running samples, one each, then the prompts that are being
computed. A sample attends to its prompt's pages, to pages of its own, and to its tail; a prompt to its pages.
Pages that follow one another and begin the prompts of many samples are read as they stand, for all samples at once;
of the others each is read once for all samples that it belongs to.

On a CPU the arithmetic of a token depends neither on what else is in the pass nor on who computed the pages: the number
of tokens is padded to 8 (and to 16 at least), queries of one product to 4, and sums over positions are made piece by
piece, each of the same 128 positions, one after another (libraries divide longer sums at places that depend on their
length).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.engines.transformers.decoding import Decoding, Layout
from models.engines.transformers.kv import Pages, Tails, round_up
from models.engines.transformers.pieces import TOKEN_STEP, Prompted, Sampled
from models.engines.transformers.prefill import Prefill

LEAST_TOKENS = 16  # products of fewer columns are summed in another order


class Pass:
    """New tokens and what they attend to. ids, positions: [N]. ends: [m] the tokens whose logits are wanted, those of
    the samples first, then those of the prompts, padded to a multiple of 8 with token 0;
    of these the first `wanted` count. longest: no position is as high."""

    def __init__(
        self,
        samples: Sequence[Sampled],
        layout: Layout | None,
        blocks: Sequence[Sequence[Prompted]],
        pages: Pages,
        tails: Tails,
        groups: int,
    ) -> None:
        """layout: that of the samples. groups: query heads a key/value head. Room in pages and tails must have been
        reserved."""
        device = pages.keys[0].device
        self._parts: list[Decoding | Prefill] = []
        ids = [sample.token for sample in samples]
        ends = [np.arange(len(samples))]
        if layout is not None:
            self._parts.append(Decoding(samples, layout, pages, tails))
        for prompts in blocks:
            prefill = Prefill(prompts, pages, groups)
            self._parts.append(prefill)
            ends.append(len(ids) + prefill.ends)
            for prompt in prompts:
                ids += prompt.token_ids
        self._empty = max(LEAST_TOKENS, round_up(len(ids), TOKEN_STEP)) - len(ids)
        ids += [0] * self._empty
        every = np.concatenate([*(part.positions for part in self._parts), np.zeros(self._empty, int)])
        last = np.concatenate(ends)
        self.wanted, self.longest = len(last), int(every.max()) + 1
        last = np.concatenate([last, np.zeros(-len(last) % TOKEN_STEP, int)])
        self.ids = torch.tensor(ids, device=device)
        self.positions, self.ends = (torch.from_numpy(one).to(device) for one in (every, last))

    def attend(self, layer: int, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """Stores the new entries of a layer and attends. query [N, query heads, dim], keys and values
        [N, heads, dim] → [N, query heads · value dim]."""
        parts = []
        at = 0
        for part in self._parts:
            to = at + part.count
            part.write(layer, keys[at:to], values[at:to])
            parts.append(part.attend(layer, query[at:to], scaling))
            at = to
        if self._empty:
            parts.append(query.new_zeros(self._empty, parts[0].shape[1]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

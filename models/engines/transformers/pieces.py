"""What attention works on: prompts in pages, the samples that run, and sums over positions piece by piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.engines.transformers.kv import NOWHERE, PAGE, PAGES, PIECE, round_up

TOKEN_STEP = 8
QUERY_STEP = 4  # products of fewer queries are summed in another order
Piece = tuple[int, ...]  # the pages of PIECE positions


@dataclass(eq=False)
class Paged:
    """A prompt in pages. length: its positions; the pages behind are empty."""

    pages: Sequence[int]
    length: int

    @cached_property
    def pieces(self) -> list[Piece]:
        used = list(self.pages[: -(-self.length // PAGE)])
        rest = self.pages[len(used) : round_up(len(used), PAGES)]
        used += [*rest, *[NOWHERE] * (-(len(used) + len(rest)) % PAGES)]
        return [tuple(used[at : at + PAGES]) for at in range(0, len(used), PAGES)]

    @cached_property
    def run(self) -> int:
        """How many pieces from the first on stand one behind another."""
        first = self.pieces[0][0]
        for number, piece in enumerate(self.pieces):
            start = first + number * PAGES
            if piece != tuple(range(start, start + PAGES)):
                return number
        return len(self.pieces)


@dataclass(frozen=True)
class Sampled:
    """A running sample: its prompt, the full pieces of its own, the length of its tail, the token to feed."""

    prompt: Paged
    own: Sequence[Piece]
    tail: int
    token: int

    @property
    def position(self) -> int:
        return self.prompt.length + PIECE * len(self.own) + self.tail


@dataclass(frozen=True)
class Prompted:
    """A prompt whose positions from `start` on are computed into its pages."""

    prompt: Paged
    start: int
    token_ids: Sequence[int]


def query_step(groups: int) -> int:
    """Samples whose queries fill whole steps."""
    return QUERY_STEP // math.gcd(groups, QUERY_STEP)


def weighted(weights: Tensor, values: Tensor, start: Tensor | None = None) -> Tensor:
    """start + weights [b, m, t] @ values [b, t, dim], on a CPU summed piece by piece."""
    out = start
    piece = PIECE if values.device.type == "cpu" else values.shape[1]
    for at in range(0, values.shape[1], piece):
        part = torch.bmm(weights[:, :, at : at + piece], values[:, at : at + piece])
        out = part if out is None else out.add_(part)
    assert out is not None
    return out

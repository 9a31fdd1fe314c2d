"""Drawing tokens: temperature, top-k, top-p, with noise that belongs to the sample, not to the batch."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


def noise(key: tuple[int | str, ...], index: int) -> random.Random:
    """The stream of uniform numbers of sample `index`, a function of (key, index) alone; one number a token."""
    digest = hashlib.blake2b(repr((key, index)).encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


def seed_of(key: tuple[int | str, ...], index: int) -> int:
    """The seed of sample `index` for an engine that draws by itself: 63 bits, a function of (key, index) alone."""
    return int.from_bytes(hashlib.blake2b(repr((key, index)).encode(), digest_size=8).digest(), "big") >> 1


def _filtered(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """[n, vocabulary] with everything outside the top k tokens and the top-p nucleus at -inf."""
    if 0 < top_k < logits.shape[-1]:
        floor = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities >= top_p  # the most likely token always stays
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return logits


class Style(NamedTuple):
    """How a draw is made."""

    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class Draws:
    """Which token each of m draws chose, and its log-probability before temperature, top-p and top-k."""

    tokens: list[int]
    logprobs: list[float]


def choose(logits: Tensor, rows: list[int], styles: list[Style], uniforms: list[float]) -> Draws:
    """Draws m tokens. logits: [n, vocabulary], float32; draw i reads row `rows[i]` (ascending) in `styles[i]`, by
    inverting the cumulative distribution at `uniforms[i]` in [0, 1); at temperature 0 it takes the likeliest token."""
    index = torch.tensor(rows, device=logits.device)
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    groups: dict[Style, list[int]] = {}
    for draw, style in enumerate(styles):
        groups.setdefault(style, []).append(draw)
    for style, draws in groups.items():
        if len(draws) == len(rows):
            tokens = _drawn(logits, index, style, uniforms)
        else:
            part = torch.tensor(draws, device=logits.device)
            tokens[part] = _drawn(logits, index[part], style, [uniforms[draw] for draw in draws])
    logprobs = logits.log_softmax(-1)[index, tokens]
    return Draws(tokens.tolist(), logprobs.tolist())


def _drawn(logits: Tensor, rows: Tensor, style: Style, uniforms: list[float]) -> Tensor:
    """The tokens of draws of one style; rows [m] in ascending order."""
    unique, inverse, counts = rows.unique_consecutive(return_inverse=True, return_counts=True)
    if len(unique) < len(logits):
        logits = logits[unique]
    if style.temperature == 0:
        return logits.argmax(-1)[inverse]
    cumulative = _filtered(logits / style.temperature, style.top_k, style.top_p).softmax(-1).cumsum(-1)
    column = torch.arange(len(rows), device=logits.device) - (counts.cumsum(0) - counts)[inverse]
    targets = cumulative.new_zeros(len(unique), int(counts.max()))  # the draws of a row side by side
    targets[inverse, column] = torch.tensor(uniforms, dtype=cumulative.dtype, device=logits.device)
    picked = torch.searchsorted(cumulative, targets * cumulative[:, -1:], right=True)[inverse, column]
    return picked.clamp(max=logits.shape[-1] - 1)

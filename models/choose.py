"""Choosing tokens from logits: temperature, top-k, top-p, with noise that belongs to the sample, not to the batch."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from mcts.model import Sampling


def noise(key: tuple[int | str, ...], index: int) -> random.Random:
    """The stream of uniform numbers of sample `index`, a function of (key, index) alone; one number a token."""
    digest = hashlib.blake2b(repr((key, index)).encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


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


@dataclass(frozen=True)
class Draws:
    """Which token each of m draws chose, and its log-probability before temperature, top-p and top-k."""

    tokens: list[int]
    logprobs: list[float]


def choose(logits: Tensor, rows: list[int], params: list[Sampling], uniforms: list[float]) -> Draws:
    """Draws m tokens. logits: [n, vocabulary], float32; draw i reads row `rows[i]` with `params[i]`, by inverting
    the cumulative distribution at `uniforms[i]` in [0, 1); at temperature 0 it takes the most likely token."""
    tokens = _chosen(logits, rows, params, uniforms)
    index = torch.tensor(rows, device=logits.device)
    logprobs = logits.log_softmax(-1)[index, tokens]
    return Draws(tokens.tolist(), logprobs.tolist())


def _chosen(logits: Tensor, rows: list[int], params: list[Sampling], uniforms: list[float]) -> Tensor:
    chosen = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    groups: dict[tuple[float, int, float], list[int]] = {}
    for draw, one in enumerate(params):
        groups.setdefault((one.temperature, one.top_k, one.top_p), []).append(draw)
    for (temperature, top_k, top_p), draws in groups.items():
        at = torch.tensor([rows[draw] for draw in draws], device=logits.device)
        if temperature == 0:
            picked = logits[at].argmax(-1)
        else:
            unique, inverse = at.unique(return_inverse=True)
            cumulative = _filtered(logits[unique] / temperature, top_k, top_p).double().softmax(-1).cumsum(-1)
            uniform = torch.tensor([uniforms[draw] for draw in draws], dtype=torch.double, device=logits.device)
            total = cumulative[:, -1][inverse]
            picked = torch.searchsorted(cumulative[inverse], (uniform * total)[:, None], right=True).squeeze(-1)
            picked = picked.clamp(max=logits.shape[-1] - 1)
        chosen[torch.tensor(draws, device=logits.device)] = picked
    return chosen

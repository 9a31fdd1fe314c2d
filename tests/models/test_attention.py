"""Attention of a pass: the two ways for prompts agree."""

from __future__ import annotations

import torch

from models.engines.transformers.prefill import fused, in_pieces


def test_the_pieces_of_a_cpu_and_the_fused_kernel_of_a_gpu_say_the_same() -> None:
    """Three prompts of which the first 128 positions are one entry for all."""
    torch.manual_seed(0)
    query = torch.randn(2, 3, 136, 4, 16)  # [heads, n, q, groups, dim]
    keys, values = ([torch.randn(2, n, k, dim) for n, k in ((1, 128), (3, 192))] for dim in (16, 24))
    starts = torch.tensor([0, 60, 184])
    seen = torch.arange(320) <= (starts[:, None] + torch.arange(136))[:, :, None]
    mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)[:, :, None]  # [n, q, 1, positions]
    ours, theirs = (attend(query, keys, values, mask, 0.25) for attend in (in_pieces, fused))
    assert ours.shape == (2, 3, 136, 4, 24)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)

"""Whether a model's weights are numbers. What a diverged training leaves is refused before anything is built on it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity, or None. Tensors of whole numbers pass, and so do
    those that have no storage (meta)."""
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta:
            low, high = tensor.detach().aminmax()  # NaN goes through both; no copy is made, unlike by isfinite
            if not (low.isfinite() and high.isfinite()):
                return name
    return None

"""Products with weights that never change.

On a CPU in float32 the weights are kept in the order in which oneDNN's kernels read them: these use the widest vector
instructions of any processor, where the default library uses narrower ones on some, and take twice as many tokens a
second there. What is added to a product, or multiplied with it, is part of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 64  # for which the order of the weights is chosen; any number of rows may come


class Product:
    """The products of some linear units with the same input, as one; where packed, the units keep no weights."""

    def __init__(self, linears: Sequence[nn.Linear], *, packed: bool) -> None:
        weights = [linear.weight.data for linear in linears]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        biases = [linear.bias.data for linear in linears if linear.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        self._packed = pack(weight) if packed else None
        if self._packed is not None:
            weight = weight.new_empty(0)
        self.weight = weight  # [outputs, inputs]
        parts = [weight] * len(weights) if self._packed is not None else weight.split([len(one) for one in weights])
        for linear, part in zip(linears, parts, strict=True):
            linear.weight.data = part

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, inputs] → [n, outputs]"""
        if self._packed is None:
            return functional.linear(rows, self.weight, self.bias)
        return packed_product(rows, self._packed, self.bias)

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The same plus `other` [n, outputs]."""
        if self._packed is None:
            return torch.addmm(other if self.bias is None else other + self.bias, rows, self.weight.t())
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._packed, self.bias, "add")
        return out


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()


def pack(weight: Tensor) -> Tensor:
    """A weight [outputs, inputs] in the order of the kernels."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return packed


def packed_product(rows: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """[n, inputs] → [n, outputs]"""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return out

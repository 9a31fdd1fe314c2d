"""Which parameters are trained by which optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mcts.errors import UserError
from models.training.settings import TrainSettings


class Muon(torch.optim.Muon):
    """Muon (https://kellerjordan.github.io/posts/muon/), on a CPU in float32: torch's own orthogonalises in bfloat16,
    which a processor without instructions for it does 13 times slower (0.92 s and 0.07 s an update of the embedded
    model, one thread). Step sizes are torch's default ("original")."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        elsewhere = any(one.device.type != "cpu" for group in self.param_groups for one in group["params"])
        if elsewhere or closure is not None:
            return super().step(closure)
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is None:
                    continue
                state = self.state[one]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(one.grad)
                momentum: Tensor = state["momentum_buffer"].lerp_(one.grad, 1 - group["momentum"])
                update = one.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                rate = group["lr"] * max(1.0, one.shape[0] / one.shape[1]) ** 0.5
                one.mul_(1 - group["lr"] * group["weight_decay"])
                one.add_(_orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"]), alpha=-rate)
        return None


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The nearest (half-)orthogonal matrix, nearly, by a Newton-Schulz iteration with a quintic."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=eps)
    a, b, c = coefficients
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def make_optimizers(module: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything that is trained, or Muon for the matrices of the layers and AdamW for embeddings, norms and
    the value head. Decay spares vectors and the head."""
    named = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
    optimizers: list[torch.optim.Optimizer] = []
    if settings.optimizer == "muon+adamw":
        if settings.lora is not None:
            raise UserError("optimizer muon+adamw: adapters are low-rank factors, not whole matrices; use adamw")
        matrices = [one for name, one in named if one.ndim == 2 and ".layers." in name]
        named = [(name, one) for name, one in named if not (one.ndim == 2 and ".layers." in name)]
        if not matrices:
            raise UserError("optimizer muon+adamw: this model names no matrices under layers; use adamw")
        optimizers.append(Muon(matrices, lr=settings.muon_learning_rate, weight_decay=0.0))
    decayed = [one for name, one in named if one.ndim >= 2 and not name.startswith("head.")]
    spared = [one for name, one in named if one.ndim < 2 or name.startswith("head.")]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return [*optimizers, torch.optim.AdamW(groups, lr=settings.learning_rate)]

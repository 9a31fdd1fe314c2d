"""Which parameters are trained by which optimiser."""

from __future__ import annotations

import torch
from torch import nn

from mcts.errors import UserError
from models.training.settings import TrainSettings


def make_optimizers(module: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for everything that is trained, or Muon (https://kellerjordan.github.io/posts/muon/) for the matrices of
    the layers and AdamW for embeddings, norms and the value head. Decay spares vectors and the head."""
    named = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
    optimizers: list[torch.optim.Optimizer] = []
    if settings.optimizer == "muon+adamw":
        if settings.lora is not None:
            raise UserError("optimizer muon+adamw: adapters are low-rank factors, not whole matrices; use adamw")
        matrices = [one for name, one in named if one.ndim == 2 and ".layers." in name]
        named = [(name, one) for name, one in named if not (one.ndim == 2 and ".layers." in name)]
        if not matrices:
            raise UserError("optimizer muon+adamw: this model names no matrices under layers; use adamw")
        optimizers.append(torch.optim.Muon(matrices, lr=settings.muon_learning_rate, weight_decay=0.0))
    decayed = [one for name, one in named if one.ndim >= 2 and not name.startswith("head.")]
    spared = [one for name, one in named if one.ndim < 2 or name.startswith("head.")]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return [*optimizers, torch.optim.AdamW(groups, lr=settings.learning_rate)]

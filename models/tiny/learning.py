"""Joint training of policy and value: examples, batches, the optimiser, one loop.

The loss is AlphaMath's (https://arxiv.org/abs/2405.03553, section 3.3): cross-entropy on the tokens that the policy
should write, plus a weight times the squared error of the value head at the ends of steps.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.value_head import ValueHead

IGNORED = -100
LENGTH_STEP = 16  # batches are padded to multiples of this


@dataclass(frozen=True)
class Example:
    """One path. learned: for each token, whether the policy learns it; targets: (position, value in [-1, 1])."""

    token_ids: tuple[int, ...]
    learned: tuple[bool, ...]
    targets: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Batch:
    """token_ids, labels (IGNORED where nothing is learned) and targets (NaN where there is none), each [B, T]."""

    token_ids: Tensor
    labels: Tensor
    targets: Tensor


def collate(examples: Sequence[Example]) -> Batch:
    """Pads on the right: with causal attention no token sees the padding, so no mask is needed."""
    length = -(-max(len(example.token_ids) for example in examples) // LENGTH_STEP) * LENGTH_STEP
    token_ids = torch.zeros(len(examples), length, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED)
    targets = torch.full((len(examples), length), torch.nan)
    for row, example in enumerate(examples):
        own = torch.tensor(example.token_ids)
        token_ids[row, : len(own)] = own
        labels[row, : len(own)] = own.where(torch.tensor(example.learned), IGNORED)
        for position, value in example.targets:
            targets[row, position] = value
    return Batch(token_ids, labels, targets)


def batches(examples: Iterable[Example], size: int, rng: random.Random, pool: int = 16) -> Iterator[Batch]:
    """Batches of `size` examples of similar length, `pool` batches read ahead and shuffled."""
    source = iter(examples)
    while ready := list(islice(source, size * pool)):
        ready.sort(key=lambda example: len(example.token_ids))
        groups = [ready[at : at + size] for at in range(0, len(ready), size)]
        rng.shuffle(groups)
        yield from map(collate, groups)


def losses(model: Any, head: ValueHead, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and mean squared value error; 0 where a batch has nothing of the kind."""
    hidden = model.model(input_ids=batch.token_ids, use_cache=False).last_hidden_state  # [B, T, hidden]
    policy = value = hidden.new_zeros(())
    following = batch.labels[:, 1:]
    learned = following != IGNORED
    if learned.any():
        policy = functional.cross_entropy(model.lm_head(hidden[:, :-1][learned]), following[learned])
    known = ~batch.targets.isnan()
    if known.any():
        value = functional.mse_loss(head(hidden[known]), batch.targets[known])
    return policy, value


def orthogonalized(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest half-orthogonal matrices, roughly, of [n, rows, columns], by Newton–Schulz in float32."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), for weight matrices.

    Not torch.optim.Muon: that one computes in bfloat16 and one matrix at a time, several times slower on a CPU.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            shapes.setdefault(parameter.shape, []).append(parameter)
        super().__init__([{"params": same} for same in shapes.values()], {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters, momentum = group["params"], group["momentum"]
            gradient = torch.stack([parameter.grad for parameter in parameters])  # [n, rows, columns]
            state = self.state[parameters[0]]
            average = state.setdefault("average", torch.zeros_like(gradient))
            average.lerp_(gradient, 1 - momentum)
            update = orthogonalized(gradient.lerp(average, momentum))
            scale = max(1.0, gradient.size(-2) / gradient.size(-1)) ** 0.5
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-group["lr"] * scale)


def optimizers(model: Any, head: ValueHead, rates: tuple[float, float]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, norms and the value head."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in [*model.parameters(), *head.parameters()] if id(p) not in chosen]
    return [Muon(matrices, rates[0]), torch.optim.AdamW(rest, rates[1], weight_decay=0.0)]


def schedule(update: int, updates: int, warmup: int = 20, decay: float = 0.6) -> float:
    """Factor of the learning rate: a short linear rise, a plateau, a linear fall over the last part."""
    return min(1.0, (update + 1) / warmup, (updates - update) / (updates * decay))


def fit(
    model: Any,
    head: ValueHead,
    source: Iterator[Batch],
    updates: int,
    *,
    rates: tuple[float, float],
    value_weight: float,
    report: Callable[[str], None],
    report_every: int = 50,
) -> None:
    """Trains in place for `updates` batches. rates: the learning rates of Muon and of AdamW."""
    parameters = [*model.parameters(), *head.parameters()]
    stepped = [(optimizer, optimizer.defaults["lr"]) for optimizer in optimizers(model, head, rates)]
    model.train(), head.train()
    started, sums = time.monotonic(), torch.zeros(2)
    for update, batch in enumerate(islice(source, updates)):
        policy, value = losses(model, head, batch)
        (policy + value_weight * value).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, lr in stepped:
            for group in optimizer.param_groups:
                group["lr"] = lr * schedule(update, updates)
            optimizer.step()
            optimizer.zero_grad()
        sums += torch.stack([policy.detach(), value.detach()])
        if (update + 1) % report_every == 0 or update + 1 == updates:
            left = (time.monotonic() - started) / (update + 1) * (updates - update - 1)
            count = update % report_every + 1
            report(
                f"{update + 1}/{updates} policy {sums[0] / count:.4f} value {sums[1] / count:.4f}, {left:.0f} s left"
            )
            sums.zero_()
    model.eval(), head.eval()

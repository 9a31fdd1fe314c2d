"""Losses of policy and value. Each is a sum divided by a count that the caller gives; over nothing it is 0, never NaN.

- policy: cross-entropy of the tokens of correct paths, and value: squared error of tanh values at step ends of correct
  and wrong paths (AlphaMath, https://arxiv.org/abs/2405.03553); with outcomes as targets it is OVM
  (https://arxiv.org/abs/2311.09724);
- preference: logistic loss on what the policy prefers more than its reference does, and ranking: the preferred step
  must be worth a margin more (SVPO, https://arxiv.org/abs/2407.00782).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from mcts.errors import UserError
from models.engines.value_head import ValueHead
from models.training.data import Batch
from models.training.objectives import OBJECTIVES, Asked, Objective, Term, Weights, register_objective

__all__ = [
    "OBJECTIVES", "Asked", "Objective", "PolicyValue", "Term", "Weights", "check_tree_attention", "policy_sum",
    "preference_sum", "ranking_sum", "register_objective", "token_logprobs", "value_sum",
]  # fmt: skip


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token. logits: [n, vocabulary], tokens: [n] → [n], float32."""
    return -functional.cross_entropy(logits.float(), tokens, reduction="none")


def policy_sum(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, summed. logprobs, weights: [n]."""
    return -(logprobs * weights).sum()


def value_sum(values: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error, summed. All [m]."""
    return (weights * (values - targets) ** 2).sum()


def preference_sum(logprobs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta · (gain of the chosen step - gain of the rejected one)), summed.

    logprobs, reference: [p, 2], log-probabilities of (chosen, rejected) under policy and reference.
    """
    gain = logprobs - reference  # [p, 2]
    return -functional.logsigmoid(beta * (gain[:, 0] - gain[:, 1])).sum()


def ranking_sum(values: Tensor, margin: float) -> Tensor:
    """max(0, margin - (value of the chosen step - value of the rejected one)), summed. values: [p, 2]."""
    return functional.relu(margin - (values[:, 0] - values[:, 1])).sum()


class PolicyValue(nn.Module):
    """A causal language model of transformers and a value head on its last hidden state, as one module.

    Its forward pass computes the losses, so that wrappers (DDP, FSDP, ZeRO-3) see one ordinary call. seen: where the
    model is frozen, its states by the tokens before them, so that an epoch after the first costs the head alone.
    """

    def __init__(self, model: nn.Module, head: ValueHead) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.seen: dict[bytes, Tensor] | None = None

    @property
    def causal(self) -> PreTrainedModel:
        """The language model itself, adapters inside its layers."""
        model: Any = self.model
        inner: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model
        return inner

    @property
    def _no_split_modules(self) -> list[str]:
        """The layers that FSDP shards one by one, as transformers names them."""
        return list(self.causal._no_split_modules or ())

    def hidden(self, batch: Batch) -> Tensor:
        """The states after the final norm, flattened: [B · T, hidden]."""
        causal = self.causal
        mask = batch.mask
        if mask is not None and causal.config._attn_implementation == "eager":
            mask = torch.zeros(mask.shape, dtype=causal.dtype, device=mask.device).masked_fill(
                ~mask, torch.finfo(causal.dtype).min
            )
        output = causal.base_model(
            input_ids=batch.token_ids, position_ids=batch.positions, attention_mask=mask, use_cache=False
        )
        states: Tensor = output.last_hidden_state
        return states.flatten(0, 1)

    def _known(self, batch: Batch, at: Tensor, seen: dict[bytes, Tensor]) -> Tensor:
        """The states at some flat positions of a batch of single paths, [n, hidden]."""
        rows, width = batch.token_ids.cpu().numpy(), batch.token_ids.shape[1]
        begins = torch.arange(0, rows.size, width, device=at.device)  # the token of weight 0 is one of them
        every = torch.cat([at, begins])
        keys = [rows[one // width, : one % width + 1].tobytes() for one in every.tolist()]
        if any(key not in seen for key in keys[: len(at)]):
            self.model.eval()
            with torch.no_grad():
                seen.update(zip(keys, self.hidden(batch)[every], strict=True))
        return torch.stack([seen[key] for key in keys[: len(at)]])

    def values(self, hidden: Tensor) -> Tensor:
        """[n, hidden] → [n] in (-1, 1), in the head's own precision even under autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.head(hidden)
            return values

    def forward(self, batch: Batch, weights: Weights) -> tuple[Tensor, Tensor]:
        """The terms, summed [k], in the order of `weights.names`, and the log-probabilities of the steps of each pair
        [p, 2].

        One token of weight 0 takes part in every term, so that every parameter has a gradient in every batch.
        """
        first = batch.policy_at.new_zeros(1)
        said = torch.cat([batch.policy_at, batch.pair_at, first])
        ends_at = torch.cat([batch.value_at, batch.pair_end.flatten(), first])
        if self.seen is not None and batch.mask is None and weights.values_alone:
            values = self.values(self._known(batch, ends_at, self.seen))
            logprobs = values.new_zeros(len(said))
        else:
            hidden = self.hidden(batch)  # [B · T, hidden]
            tokens = torch.cat([batch.policy_token, batch.pair_token, first])
            logprobs = token_logprobs(self.causal.get_output_embeddings()(hidden[said]), tokens)
            values = self.values(hidden[ends_at])
        learned, pairs = len(batch.policy_at), len(batch.pair_end)
        steps = logprobs.new_zeros(2 * pairs).index_add(0, batch.pair_side, logprobs[learned:-1]).view(pairs, 2)
        nothing = 0.0 * (logprobs[-1] + values[-1])
        judged = len(batch.value_at)
        ends = values[judged:-1].view(pairs, 2)
        asked = Asked(
            logprobs[:learned], batch.policy_weight, values[:judged], batch.value_target, batch.value_weight, steps,
            batch.reference, ends,
        )  # fmt: skip
        terms = [
            policy_sum(asked.logprobs, asked.policy_weight) + nothing,
            value_sum(asked.values, asked.value_target, asked.value_weight),
            preference_sum(asked.steps, asked.reference, weights.beta),
            ranking_sum(asked.ends, weights.margin),
            *(term.sum(asked) for term in weights.more),
        ]
        return torch.stack(terms), steps.detach()


def check_tree_attention(config: object, longest: int) -> None:
    """Raises UserError for models whose attention a mask over ancestors does not describe."""
    window = getattr(config, "sliding_window", None)
    if window and longest > window and getattr(config, "use_sliding_window", True):
        raise UserError(
            f"tree_attention: a path of {longest} tokens is longer than the sliding window of {window}; set it to never"
        )
    if str(getattr(config, "_attn_implementation", "")).startswith("flash"):
        raise UserError("tree_attention: flash attention takes no mask over ancestors; use sdpa, or set it to never")

"""Losses of policy and value. Each is a sum divided by a count that the caller gives; over nothing it is 0, never NaN.

- policy: cross-entropy of the tokens of correct paths, and value: squared error of tanh values at step ends of correct
  and wrong paths (AlphaMath, https://arxiv.org/abs/2405.03553); with outcomes as targets it is OVM
  (https://arxiv.org/abs/2311.09724);
- preference: logistic loss on what the policy prefers more than its reference does, and ranking: the preferred step
  must be worth a margin more (SVPO, https://arxiv.org/abs/2407.00782).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mcts.errors import UserError
from models.engines.value_head import ValueHead
from models.training.data import Batch, Totals

TERMS = ("policy", "value", "preference", "ranking")


@dataclass(frozen=True)
class Weights:
    """What each term counts. beta: sharpness of the preference; margin: of the ranking."""

    policy: float = 1.0
    value: float = 0.1
    preference: float = 0.0
    ranking: float = 0.0
    beta: float = 0.1
    margin: float = 0.5

    def combine(self, terms: Tensor) -> Tensor:
        """The loss from its four terms [4]."""
        return terms @ terms.new_tensor([self.policy, self.value, self.preference, self.ranking])


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

    Its forward pass computes the losses, so that wrappers (DDP, FSDP, ZeRO-3) see one ordinary call.
    """

    def __init__(self, model: nn.Module, head: ValueHead) -> None:
        super().__init__()
        self.model = model
        self.head = head

    @property
    def causal(self) -> nn.Module:
        """The language model itself, adapters inside its layers."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

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
        return output.last_hidden_state.flatten(0, 1)

    def values(self, hidden: Tensor) -> Tensor:
        """[n, hidden] → [n] in (-1, 1), in the head's own precision even under autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden)

    def forward(self, batch: Batch, weights: Weights) -> tuple[Tensor, Tensor]:
        """The four terms, summed [4], and the log-probabilities of the steps of each pair [p, 2].

        One token of weight 0 takes part in every term, so that every parameter has a gradient in every batch.
        """
        hidden = self.hidden(batch)  # [B · T, hidden]
        first = batch.policy_at.new_zeros(1)
        asked = torch.cat([batch.policy_at, batch.pair_at, first])
        tokens = torch.cat([batch.policy_token, batch.pair_token, first])
        logprobs = token_logprobs(self.causal.get_output_embeddings()(hidden[asked]), tokens)
        learned, pairs = len(batch.policy_at), len(batch.pair_end)
        steps = logprobs.new_zeros(2 * pairs).index_add(0, batch.pair_side, logprobs[learned:-1]).view(pairs, 2)
        values = self.values(hidden[torch.cat([batch.value_at, batch.pair_end.flatten(), first])])
        nothing = 0.0 * (logprobs[-1] + values[-1])
        ends = values[len(batch.value_at) : -1].view(pairs, 2)
        terms = [
            policy_sum(logprobs[:learned], batch.policy_weight) + nothing,
            value_sum(values[: len(batch.value_at)], batch.value_target, batch.value_weight),
            preference_sum(steps, batch.reference, weights.beta),
            ranking_sum(ends, weights.margin),
        ]
        return torch.stack(terms), steps.detach()


def means(sums: Tensor, totals: Totals) -> Tensor:
    """The four terms [4] as means over what `totals` counts; 0 where there is nothing."""
    counts = (totals.policy, totals.value, totals.pairs, totals.pairs)
    return sums / sums.new_tensor([max(1.0, count) for count in counts])


def check_tree_attention(config: object, longest: int) -> None:
    """Raises UserError for models whose attention a mask over ancestors does not describe."""
    window = getattr(config, "sliding_window", None)
    if window and longest > window and getattr(config, "use_sliding_window", True):
        raise UserError(
            f"tree_attention: a path of {longest} tokens is longer than the sliding window of {window}; set it to never"
        )
    if str(getattr(config, "_attn_implementation", "")).startswith("flash"):
        raise UserError("tree_attention: flash attention takes no mask over ancestors; use sdpa, or set it to never")

"""A causal language model of transformers as the batch sees it: token ids and rows in, logits and values out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import sdpa_mask

from mcts.config import UserError
from models.kv import RowCache, Rows, Shape
from models.value_head import ValueHead

ATTENTION = "arbor_rows"
LAST_TOKENS = 8  # positions a row that the output layers see on a CPU: products of few rows sum in another order


def row_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention over rows, query [n, heads, q, dim] → [n, q, heads, dim].

    With one query a row on a CPU it is two plain batched products: the fused kernel gives a row's sum another order
    when the batch changes, and the same seed must give the same tree.
    """
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    groups = query.shape[1] // key.shape[1]
    if query.shape[2] == 1 and query.device.type == "cpu" and attention_mask is not None:
        rows, heads = key.shape[:2]
        grouped = query.reshape(rows, heads, groups, -1)  # [n, kv heads, groups, dim]
        scores = torch.matmul(grouped, key.transpose(-1, -2)) * scaling
        weights = scores.masked_fill_(~attention_mask, -torch.inf).softmax(-1)
        return torch.matmul(weights, value).reshape(rows, 1, heads * groups, -1), None
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    causal = attention_mask is None and query.shape[2] > 1
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, is_causal=causal, scale=scaling
    )
    return out.transpose(1, 2), None


class Network:
    """window: the longest prompt plus answer, in tokens. Raises UserError for models it cannot run."""

    def __init__(self, model: Any, head: ValueHead | None) -> None:
        self.model, self.head = model.eval(), head
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        self.window = _window(model.config)
        self._hidden: Tensor | None = None
        model.base_model.register_forward_hook(self._catch_hidden)
        self.shape = self._probe()

    def _catch_hidden(self, module: nn.Module, args: Any, output: Any) -> None:
        self._hidden = output.last_hidden_state

    def _probe(self) -> Shape:
        """Runs one token through the model to see what its cache looks like."""
        cache = DynamicCache()
        with torch.inference_mode():
            self.model(torch.zeros(1, 1, dtype=torch.long, device=self.device), past_key_values=cache, use_cache=True)
        shapes = {(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in cache.layers}
        if len(shapes) != 1:
            raise UserError(
                f"{self.model.config.model_type}: its layers keep different caches; full attention is supported"
            )
        heads, key_dim, value_dim = shapes.pop()
        return Shape(len(cache.layers), heads, key_dim, value_dim)

    def forward(
        self,
        rows: Rows,
        first: int,
        ids: Tensor,
        positions: Tensor,
        write_at: Tensor,
        length: int,
        *,
        with_values: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """One pass over the rows from `first` on.

        ids, positions, write_at: [n, q], on the CPU; padding stands on the left and writes to the scratch position.
        length: how many positions attention looks at. Returns the logits [n, vocabulary] and the values [n] (None
        without a head) after the last token of each row, both float32.
        """
        ids, positions, write_at = (tensor.to(self.device) for tensor in (ids, positions, write_at))
        mask = torch.arange(length, device=self.device) <= positions[:, :, None]  # [n, q, length]
        keep = min(ids.shape[1], LAST_TOKENS) if self.device.type == "cpu" else 1
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask[:, None],
            past_key_values=RowCache(rows, first, write_at, length),
            use_cache=True,
            logits_to_keep=keep,
        )
        logits = output.logits[:, -1].float()
        if self.head is None or not with_values:
            return logits, None
        assert self._hidden is not None
        return logits, self.head(self._hidden[:, -keep:])[:, -1].float()


def _window(config: Any) -> int:
    window = int(getattr(config, "max_position_embeddings", 0) or 1 << 20)
    sliding = getattr(config, "sliding_window", None)
    if sliding and getattr(config, "use_sliding_window", True):
        window = min(window, int(sliding))  # a row attends to all of its positions: right within the sliding window
    return window


def register_attention() -> None:
    """Makes `row_attention` known to transformers under the name ATTENTION."""
    AttentionInterface.register(ATTENTION, row_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)

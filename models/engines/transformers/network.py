"""A causal language model of transformers as the batch sees it: a pass of tokens in, logits and values out."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from mcts.errors import UserError
from models.engines.transformers.attention import Pass
from models.engines.transformers.kv import Shape
from models.engines.transformers.llama import LeanLlama, supports
from models.engines.value_head import ValueHead

ATTENTION = "arbor"


class _Current(threading.local):
    """What the attention of the running thread works on; transformers hands no state of ours through its layers."""

    cache: PassCache | None = None
    groups = 1


_current = _Current()


class PassCache(Cache):
    """Catches the new entries of each layer on their way to `pass_attention`."""

    def __init__(self, work: Pass) -> None:
        super().__init__(layers=[])
        self.work, self.layer = work, 0

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.layer = layer_idx
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are always given


def pass_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of a pass: query [1, query heads, N, dim], key and value the new entries → [1, N, query heads, dim]."""
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if _current.cache is None:  # the probe: a single token
        _current.groups = query.shape[1] // key.shape[1]
        return value.repeat_interleave(_current.groups, dim=1).transpose(1, 2), None
    cache = _current.cache
    out = cache.work.attend(
        cache.layer, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), scaling
    )
    return out.view(1, out.shape[0], query.shape[1], -1), None


class Network:
    """window: the longest prompt plus answer, in tokens. Raises UserError for models it cannot run."""

    def __init__(self, model: Any, head: ValueHead | None, *, lean: bool = True, compiled: bool = False) -> None:
        """lean: whether models of the covered families take the short way (`llama.py`), which may be compiled."""
        self.model, self.head = model.eval(), head
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        self.window = _window(model.config)
        self._hidden: Tensor | None = None
        model.base_model.register_forward_hook(self._catch_hidden)
        self.shape = self._probe()
        self._lean = LeanLlama(model, self.shape, compiled=compiled) if lean and supports(model) else None
        if compiled and self._lean is None:
            raise UserError(f"engine_args: compile does not cover {type(model).__name__}: leave it out")
        self._output: Tensor = model.get_output_embeddings().weight  # [vocabulary, hidden]
        self._no_bias = self._output.new_zeros(self._output.shape[0])  # products with one are faster

    def _catch_hidden(self, module: nn.Module, args: Any, output: Any) -> None:
        self._hidden = output.last_hidden_state

    def _probe(self) -> Shape:
        """Runs one token through the model to see what its cache looks like."""
        cache = DynamicCache()
        with torch.inference_mode():
            self.model(torch.zeros(1, 1, dtype=torch.long, device=self.device), past_key_values=cache, use_cache=True)
        kept = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
        both = [(layer.keys, layer.values) for layer in kept if layer.keys is not None and layer.values is not None]
        shapes = {(keys.shape[1], keys.shape[3], values.shape[3]) for keys, values in both}
        if len(shapes) != 1 or len(both) < len(cache.layers):
            raise UserError(
                f"{self.model.config.model_type}: its layers keep different caches; full attention is supported"
            )
        heads, key_dim, value_dim = shapes.pop()
        return Shape(len(cache.layers), heads, _current.groups, key_dim, value_dim)

    def forward(self, work: Pass, *, with_values: bool) -> tuple[Tensor, Tensor | None]:
        """Returns the logits [m, vocabulary] and the values [m] (None without a head) at the ends of a pass, both
        float32."""
        if self._lean is not None:
            hidden = self._lean(work)
            logits = functional.linear(hidden, self._output, self._no_bias)
        else:
            hidden, logits = self._through_transformers(work)
        values = self.head(hidden).float() if self.head is not None and with_values else None
        return logits.float(), values

    def _through_transformers(self, work: Pass) -> tuple[Tensor, Tensor]:
        _current.cache = PassCache(work)
        try:
            output = self.model(
                input_ids=work.ids[None],
                position_ids=work.positions[None],
                past_key_values=_current.cache,
                use_cache=True,
                logits_to_keep=work.ends,
            )
        finally:
            _current.cache = None
        assert self._hidden is not None
        return self._hidden[0, work.ends], output.logits[0]


def _window(config: Any) -> int:
    window = int(getattr(config, "max_position_embeddings", 0) or 1 << 20)
    sliding = getattr(config, "sliding_window", None)
    if sliding and getattr(config, "use_sliding_window", True):
        window = min(window, int(sliding))  # a token attends to all before it: right within the sliding window
    return window


def register_attention() -> None:
    """Makes `pass_attention` known to transformers under the name ATTENTION; it needs no mask of theirs."""
    AttentionInterface.register(ATTENTION, pass_attention)
    AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)

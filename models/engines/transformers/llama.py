"""The forward pass of the Llama family without anything between the tensor operations.

A layer is eleven operations and its attention. Query, key and value weights are one matrix, gate and up weights too;
the transformers model keeps views of them, so the weights stand in memory once. Covered: Llama, Mistral, Qwen2 and
Qwen3 with SiLU and a rotation that does not depend on the length; everything else goes through transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.engines.transformers.attention import Pass
from models.engines.transformers.kv import Shape

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROTATIONS = ("default", "linear", "llama3", "yarn")


@dataclass
class _Layer:
    norm: Tensor
    qkv: Tensor  # [query + key + value, hidden]
    qkv_bias: Tensor | None
    query_norm: Tensor | None  # [dim]
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor  # [2 · feed-forward, hidden]
    down: Tensor


def supports(model: Any) -> bool:
    """Whether the model is one of the covered ones, with plain weights on one device."""
    config = model.config
    if type(model).__name__ not in FAMILIES or config.hidden_act not in ("silu", "swish"):
        return False
    if getattr(config, "mlp_bias", False) or config.rope_parameters.get("rope_type") not in ROTATIONS:
        return False
    linears = [module for module in model.model.layers.modules() if type(module).__name__.endswith("Linear")]
    return (
        all(type(linear) is nn.Linear and linear.weight.dtype == model.dtype for linear in linears)
        and len({parameter.device for parameter in model.parameters()}) == 1
    )


def _joined(linears: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """One weight (and bias) for several linear units, which keep views of it."""
    weight = torch.cat([linear.weight.data for linear in linears])
    for linear, part in zip(linears, weight.split([linear.out_features for linear in linears]), strict=True):
        linear.weight.data = part
    biases = [linear.bias.data for linear in linears if linear.bias is not None]
    return weight, torch.cat(biases) if biases else None


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _joined([attention.q_proj, attention.k_proj, attention.v_proj])
    gate_up, _ = _joined([mlp.gate_proj, mlp.up_proj])
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    query_norm, key_norm = (norm.weight.data if norm is not None else None for norm in norms)
    return _Layer(
        layer.input_layernorm.weight.data,
        qkv,
        qkv_bias,
        query_norm,
        key_norm,
        attention.o_proj.weight.data,
        attention.o_proj.bias.data if attention.o_proj.bias is not None else None,
        layer.post_attention_layernorm.weight.data,
        gate_up,
        mlp.down_proj.weight.data,
    )


class LeanLlama:
    """The hidden states of a transformers model of the covered families, by fewer operations."""

    def __init__(self, model: Any, shape: Shape, *, compiled: bool = False) -> None:
        """compiled: what lies between two attentions is fused by torch.compile. Ask `supports` first."""
        config = model.config
        if compiled:
            self._project = torch.compile(self._project, dynamic=True)  # type: ignore[method-assign]
            self._feed = torch.compile(self._feed, dynamic=True)  # type: ignore[method-assign]
        self._shape, self._eps = shape, config.rms_norm_eps
        self._embedding: Tensor = model.model.embed_tokens.weight.data
        self._layers = [_layer(layer) for layer in model.model.layers]
        self._norm: Tensor = model.model.norm.weight.data
        self._scaling: float = shape.key_dim**-0.5
        self._rotary = model.model.rotary_emb
        self._rotate_to(1024)

    def _rotate_to(self, positions: int) -> None:
        """cos and sin [positions, 1, dim]; the sine carries the sign of the half that it multiplies."""
        every = torch.arange(positions, device=self._embedding.device)[None]
        cos, sin = self._rotary(self._embedding[:1], every)
        half = sin.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        self._cos, self._sin = cos[0, :, None].contiguous(), sin[0, :, None].contiguous()

    def __call__(self, work: Pass) -> Tensor:
        """The states after the final norm at the ends of the pass, [m, hidden]."""
        if work.longest > len(self._cos):
            self._rotate_to(2 * work.longest)
        state = functional.embedding(work.ids, self._embedding)  # [N, hidden]
        cos, sin = self._cos[work.positions], self._sin[work.positions]
        for number, layer in enumerate(self._layers):
            query, keys, values = self._project(layer, state, cos, sin)
            state = self._feed(layer, state, work.attend(number, query, keys, values, self._scaling))
        return functional.rms_norm(state[work.ends], self._norm.shape, self._norm, self._eps)

    def _project(self, layer: _Layer, state: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What attention works on: queries [N, query heads, dim], new keys and values [N, heads, dim]."""
        heads, dim = self._shape.heads, self._shape.key_dim
        queries = heads * self._shape.groups
        normed = functional.rms_norm(state, layer.norm.shape, layer.norm, self._eps)
        qkv = functional.linear(normed, layer.qkv, layer.qkv_bias).view(len(state), queries + 2 * heads, dim)
        turning = qkv[:, : queries + heads]  # [N, query and key heads, dim]
        if layer.query_norm is not None and layer.key_norm is not None:
            query = functional.rms_norm(turning[:, :queries], (dim,), layer.query_norm, self._eps)
            key = functional.rms_norm(turning[:, queries:], (dim,), layer.key_norm, self._eps)
            turning = torch.cat([query, key], dim=1)
        turned = torch.addcmul(turning * cos, turning.roll(dim // 2, -1), sin)
        return turned[:, :queries], turned[:, queries:], qkv[:, queries + heads :]

    def _feed(self, layer: _Layer, state: Tensor, mixed: Tensor) -> Tensor:
        """The rest of a layer, from what attention gave [N, query heads · dim] to the next state [N, hidden]."""
        if layer.out_bias is not None:
            state = state + layer.out_bias
        state = torch.addmm(state, mixed, layer.out.t())
        normed = functional.rms_norm(state, layer.mlp_norm.shape, layer.mlp_norm, self._eps)
        gate, up = (layer.gate_up @ normed.t()).chunk(2)  # [feed-forward, N]: the faster way round, twice on a CPU
        return torch.addmm(state, functional.silu(gate).mul_(up).t(), layer.down.t())

"""vLLM plugin: a value head (AlphaMath, https://arxiv.org/abs/2405.03553) on any causal language model, no fork.

The value of a prompt arrives with its first generated token. A model class `…WithValueHead` writes it into the logit of
one token id that the model never produces, so that the id's log-probability is the value minus `OFFSET`; a request asks
for it with `logprob_token_ids=[value_token_id]`. The slot carries e^-63 of the probability mass at most.

An unchanged checkpoint is served with the overrides of `hf_overrides`; its head lies beside the weights:

vllm serve FOLDER --return-tokens-as-token-ids --hf-overrides "$(python -m arbor_value_head FOLDER)"

Tested with vLLM 0.32.0 on a CPU. Not covered: speculative decoding (it drops the ids), pipeline parallelism, LoRA on
the output layer, and a model whose output layer is quantised together with a vocabulary that has no free id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

OFFSET = 64.0  # slot = log-sum-exp of the row - OFFSET + value
SUFFIX = "WithValueHead"
HEAD_FILES = ("value_head.safetensors", "value_head.pth")  # ours, the published one
_WEIGHT, _BIAS = "v_head.summary.weight", "v_head.summary.bias"
_EMBEDDINGS = ("embed", "lm_head", "wte", "output.")


def hf_overrides(
    architectures: list[str], vocab_size: int, known_ids: int, value_token_id: int | None
) -> dict[str, Any]:
    """What to override in config.json. known_ids: the tokenizer's largest id + 1.

    The value takes `value_token_id` where that is given, else the last id that pads the vocabulary, else a new id
    behind it (the embedding and the output layer get one more row when they are loaded).
    """
    overrides: dict[str, Any] = {"architectures": [name.removesuffix(SUFFIX) + SUFFIX for name in architectures]}
    extended = value_token_id is None and known_ids >= vocab_size
    if extended:
        overrides["vocab_size"] = vocab_size + 1
    token = value_token_id if value_token_id is not None else vocab_size if extended else vocab_size - 1
    return overrides | {"value_token_id": token, "value_extends_vocabulary": extended}


def read_head(folder: Path) -> tuple[Any, Any]:
    """Weight [1, hidden] and bias [1] of the head beside a model's weights, float32; never runs code of the file."""
    import torch
    from safetensors.torch import load_file

    path = next((folder / name for name in HEAD_FILES if (folder / name).exists()), None)
    if path is None:
        raise ValueError(f"{folder}: no {' or '.join(HEAD_FILES)} in it")
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    return tensors[_WEIGHT].float(), tensors[_BIAS].float()


class ValueHeadMixin:
    """Goes before a vLLM model class: `class X(ValueHeadMixin, LlamaForCausalLM)`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, **kwargs)
        folder = Path(vllm_config.model_config.model)
        if vllm_config.parallel_config.enable_batch_sharded_sampling:
            raise ValueError("enable_batch_sharded_sampling passes the value head by; switch it off")
        config = vllm_config.model_config.hf_config
        self.value_token_id: int = config.value_token_id
        self._known_rows = config.vocab_size - 1 if config.value_extends_vocabulary else None
        self._value_weight, self._value_bias = read_head(folder)
        if not set(folder.glob("*.safetensors")) - {folder / HEAD_FILES[0]}:  # the head must not pass for the weights
            self.allow_patterns_overrides = ["*.bin", "*.pt"]

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
        return super().load_weights(self._model_weights(weights))  # type: ignore[misc, no-any-return]

    def _model_weights(self, weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """The model's own tensors, with one more row where the vocabulary was extended."""
        from torch.nn.functional import pad

        for name, tensor in weights:
            if name.startswith("v_head."):
                continue
            if tensor.shape[:1] == (self._known_rows,) and any(part in name for part in _EMBEDDINGS):
                tensor = pad(tensor, (0, 0) * (tensor.ndim - 1) + (0, 1))
            yield name, tensor

    def compute_logits(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """hidden_states: [n, hidden] after the final norm → logits [n, vocabulary], float32; None where tensor
        parallelism gathers them on another rank."""
        import torch

        logits = super().compute_logits(hidden_states, *args, **kwargs)  # type: ignore[misc]
        if logits is None:
            return None
        if self._value_weight.device != hidden_states.device:
            self._value_weight = self._value_weight.to(hidden_states.device)
            self._value_bias = self._value_bias.to(hidden_states.device)
        value = torch.tanh(torch.nn.functional.linear(hidden_states.float(), self._value_weight, self._value_bias))
        logits = logits.float()
        logits[:, self.value_token_id] = -torch.inf
        logits[:, self.value_token_id] = logits.logsumexp(-1) - OFFSET + value[:, 0]
        return logits


def __getattr__(name: str) -> type:
    """The class `…WithValueHead` of any architecture that vLLM knows, made when it is asked for."""
    if not name.endswith(SUFFIX):
        raise AttributeError(name)
    from vllm import ModelRegistry

    parent = ModelRegistry.models[name.removesuffix(SUFFIX)].load_model_cls()
    made = type(name, (ValueHeadMixin, parent), {"__module__": __name__})
    globals()[name] = made
    return made


def register() -> None:
    """Called by vLLM in every process that it starts."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for name in list(ModelRegistry.models):
        if name.endswith("ForCausalLM") and name + SUFFIX not in ModelRegistry.models:
            ModelRegistry.register_model(name + SUFFIX, f"{__name__}:{name + SUFFIX}")
            if name in MODELS_CONFIG_MAP:
                MODELS_CONFIG_MAP[name + SUFFIX] = MODELS_CONFIG_MAP[name]


def main() -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder = sys.argv[1]
    config = AutoConfig.from_pretrained(folder)
    known = max(AutoTokenizer.from_pretrained(folder).get_vocab().values()) + 1
    token = int(sys.argv[2]) if len(sys.argv) > 2 else None
    print(json.dumps(hf_overrides(config.architectures, config.vocab_size, known, token)))


if __name__ == "__main__":
    main()

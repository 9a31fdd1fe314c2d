"""Model folders for training: a policy with its value head in, merged sharded safetensors out."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mcts.errors import UserError
from models.engines.finite import not_finite
from models.engines.folder import check_model_dir
from models.engines.text import first_line, load_tokenizer
from models.engines.value_head import PUBLISHED_NAME, SAFETENSORS_NAME, ValueHead, load_value_head, save_value_head
from models.training.losses import PolicyValue
from models.training.settings import Lora, TrainSettings

STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_causal(folder: Path, dtype: torch.dtype | str = torch.float32) -> Any:
    """The language model of a folder. dtype: "auto" for the one it is stored in. Never runs code from it. Raises
    UserError."""
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every reader of a broken or hostile folder fails in its own way
        raise UserError(f"{folder}: cannot be loaded as a causal language model: {first_line(error)}") from None


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision that the weights of a folder are stored in: its configuration's, else that of most of them."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    named = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    if isinstance(named, torch.dtype):
        return named
    sizes: Counter[torch.dtype] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != SAFETENSORS_NAME:
            with safe_open(path, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 — no dictionary
                    part = tensors.get_slice(name)
                    sizes[STORED.get(part.get_dtype(), torch.float32)] += math.prod(part.get_shape())
    return sizes.most_common(1)[0][0] if sizes else torch.float32


def load_policy_value(
    model_dir: str | Path, dropout: float = 0.0, dtype: torch.dtype | str = torch.float32
) -> PolicyValue:
    """Policy, in `dtype`, and value head, in float32, of a folder. Without a head (`value_head.safetensors` or the
    published `value_head.pth`) a new one starts at value 0 everywhere. Raises UserError, also for weights that are not
    finite."""
    folder = check_model_dir(model_dir)
    causal = load_causal(folder, dtype)
    if (broken := not_finite(causal.named_parameters())) is not None:
        raise UserError(f"{folder}: {broken} is not finite; the training that wrote it diverged")
    hidden = causal.config.get_text_config().hidden_size
    if any((folder / name).exists() for name in (SAFETENSORS_NAME, PUBLISHED_NAME)):
        head = load_value_head(folder).float()
        if head.summary.in_features != hidden:
            raise UserError(f"{folder}: the value head is for another model: {head.summary.in_features} inputs")
    else:
        head = ValueHead(hidden)
        torch.nn.init.zeros_(head.summary.weight)
        torch.nn.init.zeros_(head.summary.bias)
    head.dropout.p = dropout
    return PolicyValue(causal, head)


def build(settings: TrainSettings) -> PolicyValue:
    """The module that is trained: adapters and gradient checkpointing where the keys ask for them. Weights that are
    frozen under adapters stay in the precision that they are stored in, if the arithmetic is in 16 bits."""
    frozen = (settings.lora is not None or settings.frozen) and settings.precision != "no"
    module = load_policy_value(settings.model_dir, settings.value_dropout, "auto" if frozen else torch.float32)
    if settings.frozen:
        module.model.requires_grad_(False)
    if settings.device == "cpu" and settings.precision == "bf16":
        module.causal.set_attn_implementation("eager")  # torch's fused attention has a slow gradient there
    if settings.lora is not None:
        module.model = _with_adapters(module.model, settings.lora)
    if settings.gradient_checkpointing:
        module.causal.gradient_checkpointing_enable({"use_reentrant": False})
    return module


def _with_adapters(model: Any, keys: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=keys.rank, lora_alpha=keys.alpha, lora_dropout=keys.dropout, target_modules=keys.targets,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        adapted = get_peft_model(model, adapters)
    except ValueError as error:
        raise UserError(f"lora: {first_line(error)}") from None
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def save_merged(settings: TrainSettings, state: dict[str, Tensor], folder: Path) -> str | None:
    """Writes a model folder that every engine loads: weights with adapters merged, in shards, tokenizer, value head.

    state: the whole state dictionary of a `PolicyValue`. The folder appears under its name only when it is complete.
    Returns the name of a weight that is not finite, if there is one; then nothing is written.
    """
    base = Path(settings.model_dir)
    dtype = stored_dtype(base) if settings.save_dtype == "auto" else DTYPES[settings.save_dtype]
    head = ValueHead(state["head.summary.weight"].shape[1])
    head.load_state_dict({name: state[f"head.{name}"].float() for name in ("summary.weight", "summary.bias")})
    model, weights = _merged(settings, state)
    weights = {name: one.to(dtype) if one.is_floating_point() else one for name, one in weights.items()}
    if (broken := not_finite([*weights.items(), *head.named_parameters()])) is not None:
        return broken
    write_folder(model, weights, head, base, folder, dtype, settings.shard_size)
    return None


def write_folder(
    model: Any, weights: dict[str, Tensor], head: ValueHead, base: Path, folder: Path, dtype: torch.dtype,
    shard_size: str = "5GB",
) -> None:  # fmt: skip
    """Writes a model folder with these weights, the tokenizer of `base` and a value head. It appears under its name
    only when it is complete."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.to(dtype).save_pretrained(unfinished, state_dict=weights, max_shard_size=shard_size)
    load_tokenizer(base).save_pretrained(unfinished)
    save_value_head(head, unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _merged(settings: TrainSettings, state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """The model without its weights, and its weights with the adapters in them."""
    if settings.lora is not None:
        module = build(settings)
        module.load_state_dict(state)
        adapted: Any = module.model
        merged = adapted.merge_and_unload()
        return merged, merged.state_dict()
    config = AutoConfig.from_pretrained(settings.model_dir, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model, {name.removeprefix("model."): one for name, one in state.items() if name.startswith("model.")}

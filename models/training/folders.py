"""Model folders for training: a policy with its value head in, merged sharded safetensors out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from mcts.errors import UserError
from models.engines.folder import check_model_dir
from models.engines.text import load_tokenizer
from models.engines.value_head import PUBLISHED_NAME, SAFETENSORS_NAME, ValueHead, load_value_head, save_value_head
from models.training.losses import PolicyValue
from models.training.settings import TrainSettings


def load_causal(folder: Path) -> Any:
    """The language model of a folder in float32, for training. Never runs code from it. Raises UserError."""
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # every reader of a broken or hostile folder fails in its own way
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: cannot be loaded as a causal language model: {first}") from None


def load_policy_value(model_dir: str | Path, dropout: float = 0.0) -> PolicyValue:
    """Policy and value head of a folder. Without a head (`value_head.safetensors` or the published `value_head.pth`)
    a new one starts at value 0 everywhere."""
    folder = check_model_dir(model_dir)
    causal = load_causal(folder)
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
    """The module that is trained: adapters and gradient checkpointing where the keys ask for them."""
    module = load_policy_value(settings.model_dir, settings.value_dropout)
    if settings.lora is not None:
        from peft import LoraConfig, get_peft_model

        keys = settings.lora
        adapters = LoraConfig(
            r=keys.rank, lora_alpha=keys.alpha, lora_dropout=keys.dropout, target_modules=keys.targets,
            task_type="CAUSAL_LM",
        )  # fmt: skip
        try:
            module.model = get_peft_model(module.model, adapters)
        except ValueError as error:
            raise UserError(f"lora: {str(error).splitlines()[0]}") from None
    if settings.gradient_checkpointing:
        module.causal.gradient_checkpointing_enable({"use_reentrant": False})
    return module


def save_merged(settings: TrainSettings, state: dict[str, Any], folder: Path) -> None:
    """Writes a model folder that every engine loads: weights with adapters merged, in shards, tokenizer, value head.

    state: the whole state dictionary of a `PolicyValue`. The folder appears under its name only when it is complete.
    """
    module = build(settings)
    module.load_state_dict(state)
    model = module.model.merge_and_unload() if settings.lora is not None else module.model
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, max_shard_size=settings.shard_size)
    load_tokenizer(Path(settings.model_dir)).save_pretrained(unfinished)
    save_value_head(module.head, unfinished)
    unfinished.rename(folder)

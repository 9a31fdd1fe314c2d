"""Low-rank adapters as files: what a training changed in a model, small enough to ship, and back to a model folder.

The files are those of peft (adapter_config.json, adapter_model.safetensors), with the value head beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mcts.errors import UserError
from models.engines.text import first_line
from models.engines.value_head import PUBLISHED_NAME, SAFETENSORS_NAME, load_value_head
from models.training.folders import DTYPES, load_causal, stored_dtype, write_folder

ADAPTER = "adapter_model.safetensors"
EXTRA = 8  # directions beyond the rank in which the decomposition looks
_PREFIX = "base_model.model."


def extract(base: Path, model: Path, output: Path, rank: int, dtype: str) -> float:
    """Writes what `model` has learned beyond `base` as factors of `rank` for each linear layer, stored in `dtype`, and
    the head of `model`. Returns the share of the change, by its norm, that the factors do not hold: about 0 after one
    training with adapters of this rank. Raises UserError."""
    before, after = (dict(load_causal(folder).named_parameters()) for folder in (base, model))
    changed = dict(_changes(before, after, f"{model} over {base}"))
    tensors: dict[str, Tensor] = {}
    lost = total = 0.0
    for name, change in changed.items():
        up, down = factors(change, rank)
        up, down = up.to(DTYPES[dtype]), down.to(DTYPES[dtype])
        tensors |= {f"{_PREFIX}{name}.lora_A.weight": down, f"{_PREFIX}{name}.lora_B.weight": up}
        lost += float((change - up.float() @ down.float()).square().sum())
        total += float(change.square().sum())
    output.mkdir(parents=True, exist_ok=True)
    _lora_config(rank, changed, base).save_pretrained(str(output))
    save_file(tensors, output / ADAPTER)
    head = load_value_head(model)
    pairs = {"v_head.summary.weight": head.summary.weight.detach(), "v_head.summary.bias": head.summary.bias.detach()}
    save_file(pairs, output / SAFETENSORS_NAME)
    return float((lost / total) ** 0.5)


def _changes(before: dict[str, Tensor], after: dict[str, Tensor], where: str) -> Iterator[tuple[str, Tensor]]:
    """(layer, change of its weight). Raises UserError for other models and for changes that factors cannot hold."""
    if {name: one.shape for name, one in before.items()} != {name: one.shape for name, one in after.items()}:
        raise UserError(f"{where}: models of another shape; name the folder that the training began with as the base")
    found = {name: one.detach() - before[name].detach() for name, one in after.items() if not one.equal(before[name])}
    if not found:
        raise UserError(f"{where}: the weights are the same; name the trained model")
    for name, change in found.items():
        if change.ndim != 2 or ".layers." not in name or not name.endswith(".weight"):
            raise UserError(f"{where}: {name} has changed, which no adapter of linear layers holds; train with lora")
        yield name.removesuffix(".weight"), change


def factors(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """[out, in] → ([out, rank], [rank, in]), whose product is the best approximation; both of the same norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, sizes, right = torch.svd_lowrank(change, min(rank + EXTRA, *change.shape), niter=4)
    root = sizes[:rank].sqrt()
    return (left[:, :rank] * root).contiguous(), (right[:, :rank] * root).T.contiguous()


def _lora_config(rank: int, changed: dict[str, Tensor], base: Path) -> Any:
    from peft import LoraConfig

    targets = sorted({name.rpartition(".")[2] for name in changed})
    return LoraConfig(
        r=rank, lora_alpha=rank, target_modules=targets, task_type="CAUSAL_LM", inference_mode=True,
        base_model_name_or_path=base.name,
    )  # fmt: skip


def apply(base: Path, adapter: Path, output: Path) -> None:
    """Writes the model folder of `base` with an adapter merged into its weights and the adapter's value head, if it has
    one (else the base's), which every engine loads. Raises UserError."""
    from peft import PeftModel

    causal = load_causal(base)
    try:
        merged: nn.Module = PeftModel.from_pretrained(causal, str(adapter)).merge_and_unload()
    except Exception as error:  # every reader of a broken or foreign file fails in its own way
        raise UserError(f"{adapter}: cannot be loaded as an adapter of {base}: {first_line(error)}") from None
    with_head = any((adapter / name).exists() for name in (SAFETENSORS_NAME, PUBLISHED_NAME))
    head = load_value_head(adapter if with_head else base)
    if head.summary.in_features != causal.config.get_text_config().hidden_size:
        raise UserError(f"{adapter}: the value head is for another model: {head.summary.in_features} inputs")
    write_folder(merged, merged.state_dict(), head, base, output, stored_dtype(base))

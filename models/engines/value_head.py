"""The value head: hidden state of the last token → a number in (-1, 1).

Published form (AlphaMath): dropout in training, one linear unit in the head's own precision, tanh. The tensors are
named `v_head.summary.weight` [1, hidden] and `v_head.summary.bias` [1].
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mcts.errors import UserError
from mcts.jsonl import write_text_whole
from models.engines.finite import not_finite

SAFETENSORS_NAME = "value_head.safetensors"
PUBLISHED_NAME = "value_head.pth"
_WEIGHT, _BIAS = "v_head.summary.weight", "v_head.summary.bias"


class ValueHead(nn.Module):
    """tanh(linear(dropout(hidden))). hidden: the state after the model's final norm."""

    def __init__(self, hidden_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.summary = nn.Linear(hidden_size, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden] → [...], in the head's own precision."""
        return torch.tanh(self.summary(self.dropout(hidden.to(self.summary.weight.dtype)))).squeeze(-1)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected a dictionary of tensors, found {type(loaded).__name__}")
    return loaded


def load_value_head(model_dir: str | Path) -> ValueHead:
    """Reads the head beside a model, ours (safetensors) or the published file. Raises UserError."""
    folder = Path(model_dir)
    path = next((folder / name for name in (SAFETENSORS_NAME, PUBLISHED_NAME) if (folder / name).exists()), None)
    if path is None:
        raise UserError(
            f"{folder}: no {SAFETENSORS_NAME} or {PUBLISHED_NAME} in it, which need_value_func asks for; "
            f"scripts/save_value_head.py adds a new one, training fills it"
        )
    try:
        tensors = _read(path)
    except UserError:
        raise
    except Exception as error:  # every reader of a broken or hostile file fails in its own way
        raise UserError(f"{path}: not a value head: {str(error).splitlines()[0]}") from None
    missing = [key for key in (_WEIGHT, _BIAS) if key not in tensors]
    if missing or tensors[_WEIGHT].ndim != 2 or tensors[_WEIGHT].shape[0] != 1 or tensors[_BIAS].shape != (1,):
        raise UserError(f"{path}: expected {_WEIGHT} [1, hidden] and {_BIAS} [1], found {sorted(tensors)}")
    if (broken := not_finite(tensors.items())) is not None:
        raise UserError(f"{path}: {broken} is not finite; the training that wrote it diverged")
    head = ValueHead(tensors[_WEIGHT].shape[1]).to(tensors[_WEIGHT].dtype)
    head.load_state_dict({"summary.weight": tensors[_WEIGHT], "summary.bias": tensors[_BIAS]})
    return head.eval()


def save_value_head(head: ValueHead, model_dir: str | Path) -> Path:
    """Writes the head as safetensors beside a model and marks the model's config.json as a value model. Raises
    UserError for a config.json that cannot be read."""
    folder = Path(model_dir)
    path, config_path = folder / SAFETENSORS_NAME, folder / "config.json"
    try:
        config = json.loads(config_path.read_text(encoding="utf-8")) | {"value_model": True}
    except (ValueError, TypeError) as error:
        raise UserError(f"{config_path}: not a model's configuration: {error}") from None
    tensors = {_WEIGHT: head.summary.weight, _BIAS: head.summary.bias}
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
    write_text_whole(config_path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return path

"""The keys of a training (YAML), with the published settings as defaults."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mcts.errors import UserError
from models.training.losses import Weights

Objective = Literal["sft", "alphamath", "svpo"]
PRESETS: dict[str, Weights] = {
    "sft": Weights(value=0.0),
    "alphamath": Weights(),
    "svpo": Weights(preference=1.0, ranking=0.1),
}
"""With outcomes as targets (`targets: outcome` of the examples), `alphamath` is OVM."""


class Lora(BaseModel):
    """Low-rank adapters of peft. targets: names of the modules, `all-linear` for every linear layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: str | list[str] = "all-linear"


class TrainSettings(BaseModel):
    """One training. Paths are relative to the working directory; docs/training.md describes every key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model_dir: str
    output: str
    examples: list[str] = Field(min_length=1)
    replay: list[str] = []
    replay_share: float = Field(0.5, ge=0, lt=1)
    eval_examples: list[str] = []
    objective: Objective = "alphamath"
    policy_weight: float | None = None
    value_weight: float | None = None
    preference_weight: float | None = None
    ranking_weight: float | None = None
    beta: float | None = None
    margin: float | None = None
    epochs: float = Field(10.0, gt=0)
    updates: int | None = Field(None, ge=1)
    batch_size: int = Field(128, ge=1)
    accumulation: int = Field(1, ge=1)
    draw: Literal["example", "question"] = "example"
    tree_attention: Literal["auto", "always", "never"] = "auto"
    max_tokens: int = Field(1024, ge=2)
    optimizer: Literal["adamw", "muon+adamw"] = "adamw"
    learning_rate: float = Field(4e-5, gt=0)
    muon_learning_rate: float = Field(0.02, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0, le=1)
    decay: float = Field(1.0, ge=0, le=1)
    clip: float = Field(1.0, gt=0)
    value_dropout: float = Field(0.1, ge=0, lt=1)
    precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    lora: Lora | None = None
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0
    log_every: int = Field(10, ge=1)
    eval_every: int = Field(200, ge=1)
    save_every: int = Field(200, ge=1)
    shard_size: str = Field("5GB", pattern=r"^[1-9]\d*(KB|MB|GB|TB)$")
    tensorboard: bool = True

    @field_validator("epochs", "learning_rate", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        """YAML reads 4e-5 as a text."""
        try:
            return float(value)
        except (TypeError, ValueError):
            return value

    @property
    def weights(self) -> Weights:
        """The weights of the objective, with what the keys say instead."""
        preset = PRESETS[self.objective]
        own = {
            "policy": self.policy_weight,
            "value": self.value_weight,
            "preference": self.preference_weight,
            "ranking": self.ranking_weight,
            "beta": self.beta,
            "margin": self.margin,
        }
        return Weights(**{name: getattr(preset, name) if value is None else value for name, value in own.items()})

    def fingerprint(self) -> str:
        """A hash of the keys and the example files that shape the weights."""
        neutral = {"output", "log_every", "eval_every", "save_every", "tensorboard", "eval_examples", "shard_size"}
        digest = hashlib.sha256(json.dumps(self.model_dump(exclude=neutral), sort_keys=True).encode())
        for path in (*self.examples, *self.replay):
            try:
                digest.update(Path(path).read_bytes())
            except OSError as error:
                raise UserError(f"{path}: examples cannot be read: {error.strerror}") from None
        return digest.hexdigest()[:16]


def rate_factor(update: int, updates: int, settings: TrainSettings) -> float:
    """What the learning rate is multiplied by: a linear rise over the share `warmup`, a plateau, and a fall to 0 over
    the share `decay`, as half a cosine or linearly."""
    rise = min(1.0, (update + 1) / max(1.0, settings.warmup * updates))
    left = (updates - update) / max(1.0, settings.decay * updates)
    if settings.schedule == "constant" or left >= 1:
        return rise
    return min(rise, left if settings.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))

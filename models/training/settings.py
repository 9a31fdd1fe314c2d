"""The keys of a training (YAML), with the published settings as defaults."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcts.config import known
from models.engines.folder import check_model_dir, content_hash
from models.training.objectives import OBJECTIVES, TERMS, Weights
from models.training.stages import digest

EXAMPLE_FILES = ("examples", "replay", "eval_examples")
NEUTRAL = {"output", "log_every", "eval_every", "save_every", "tensorboard", "shard_size", "device", "keep_state"}


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
    objective: str = "alphamath"
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
    max_too_long: float = Field(0.5, ge=0, le=1)
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
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    keep: Literal["last", "best"] = "last"
    keep_state: bool = False
    tensorboard: bool = True

    @field_validator("objective")
    @classmethod
    def _objective_is_known(cls, value: str) -> str:
        return known(OBJECTIVES, value)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of example lines that count: those of the objective, and pairs where the keys weigh them."""
        weighed = self.weights.preference > 0 or self.weights.ranking > 0
        return OBJECTIVES[self.objective].kinds | ({"pair"} if weighed else set())

    @property
    def needs_reference(self) -> bool:
        return OBJECTIVES[self.objective].reference or self.weights.preference > 0

    @property
    def weights(self) -> Weights:
        """The weights of the objective, with what the keys say instead."""
        preset = OBJECTIVES[self.objective].weights
        own: dict[str, Any] = {term: getattr(self, f"{term}_weight") for term in TERMS}
        own |= {"beta": self.beta, "margin": self.margin}
        return replace(preset, **{name: value for name, value in own.items() if value is not None})

    @model_validator(mode="after")
    def _best_of_something(self) -> TrainSettings:
        if self.keep == "best" and not self.eval_examples:
            raise ValueError("keep: best needs eval_examples, whose loss says what is best")
        return self

    def inputs(self, *, length: bool = True) -> dict[str, str]:
        """What shapes the weights, name → hash: the keys that are not at their defaults (without `length` not those
        that say how long it takes), the content of the model that training starts from, and of the examples. Raises
        UserError for what cannot be read."""
        judged = {"eval_examples"} if self.keep == "best" else set()
        neutral = NEUTRAL - ({"eval_every"} if judged else set()) | (set() if length else {"epochs", "updates"})
        keys = self.model_dump(exclude=neutral | {"model_dir", *EXAMPLE_FILES}, exclude_defaults=True)
        files = {
            name: digest([content_hash(path) for path in getattr(self, name)])
            for name in ("examples", "replay", *judged)
        }
        return {"keys": digest(keys), "model": content_hash(check_model_dir(self.model_dir)), **files}

    def fingerprint(self, *, length: bool = True) -> str:
        """A hash of what shapes the weights. Raises UserError for what cannot be read."""
        return digest({"version": 2, **self.inputs(length=length)})


def rate_factor(update: int, updates: int, settings: TrainSettings) -> float:
    """What the learning rate is multiplied by: a linear rise over the share `warmup`, a plateau, and a fall to 0 over
    the share `decay`, as half a cosine or linearly."""
    rise = min(1.0, (update + 1) / max(1.0, settings.warmup * updates))
    left = (updates - update) / max(1.0, settings.decay * updates)
    if settings.schedule == "constant" or left >= 1:
        return rise
    return min(rise, left if settings.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))

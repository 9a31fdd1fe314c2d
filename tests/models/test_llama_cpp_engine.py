"""The llama.cpp engine against the transformers engine, on GGUF files that `arbor export-gguf` writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -r requirements-llama.txt")
pytest.importorskip("gguf", reason="gguf is not installed: pip install -r requirements-llama.txt")

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Sampling
from models.engines.llama_cpp.engine import LlamaCppModel
from models.engines.llama_cpp.export import export
from models.engines.text import Tokenizer
from models.engines.transformers.engine import TransformersModel
from models.engines.value_head import ValueHead, save_value_head
from tests.conftest import save_model_folder, sentencepiece_like_tokenizer
from tests.models.engines import (
    PROMPT,
    WEIGHTS,
    assert_like_transformers,
    assert_same_trees,
    assert_soak,
    build_folder,
    prompts,
    search,
    small_tokenizer,
)

EXACT = {"kv_type": "f32", "threads": 1, "kv_tokens": 16384}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_folder(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    kinds = ["F32", "Q8_0", "Q4_K_M"]
    return dict(zip(kinds, export(folder, tmp_path_factory.mktemp("gguf"), kinds), strict=True))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    kinds = ["F32", "Q8_0", "Q4_K_M"]
    return dict(zip(kinds, export(WEIGHTS, tmp_path_factory.mktemp("embedded"), kinds), strict=True))


async def test_values_tokens_and_logprobs_in_float32_are_those_of_transformers(
    written: dict[str, Path], folder: Path
) -> None:
    model = LlamaCppModel.load(written["F32"].parent, engine_args=EXACT)
    await assert_like_transformers(model, TransformersModel.load(folder))


async def test_samples_in_float32_are_those_of_transformers(written: dict[str, Path], folder: Path) -> None:
    """The noise is the same, so only a token within rounding of the border can differ."""
    model, reference = LlamaCppModel.load(written["F32"], engine_args=EXACT), TransformersModel.load(folder)
    params = Sampling(0.9, 0.95, 50, max_tokens=30, stop=("q",), key=("noise",))
    same = total = 0
    for root in prompts(model, 6):
        own, other = await asyncio.gather(model.sample(root, 8, params), reference.sample(root, 8, params))
        assert own.value == pytest.approx(other.value, abs=1e-3)
        same += sum(one.token_ids == two.token_ids for one, two in zip(own.samples, other.samples, strict=True))
        total += 8
    assert same >= 0.9 * total


@pytest.mark.parametrize(("kind", "tolerance"), [("Q8_0", 0.05), ("Q4_K_M", 0.3)])
async def test_quantised_values_stay_near(embedded: dict[str, Path], kind: str, tolerance: float) -> None:
    model = LlamaCppModel.load(embedded[kind], engine_args={"threads": 1})
    reference = TransformersModel.load(WEIGHTS)
    assert embedded[kind].stat().st_size < 0.3 * embedded["F32"].stat().st_size
    texts = [f"<question> Find the positive integer x with x^2 + {i}x = {i * 40}. </question>\n" for i in range(2, 12)]
    for text in texts:
        root = Context(None, model.encode_prompt(text))
        assert root.token_ids == reference.encode_prompt(text)
        greedy = Sampling(max_tokens=40, stop=("</code>",))
        own, other = await asyncio.gather(model.sample(root, 1, greedy), reference.sample(root, 1, greedy))
        assert own.value == pytest.approx(other.value, abs=tolerance)
        assert own.samples[0].text.splitlines()[:2] == other.samples[0].text.splitlines()[:2] == ["<step>", "<p>"]


@pytest.mark.parametrize("name", ["greedy", "sbs_3_5", "mcts"])
async def test_the_same_search_gives_the_same_trees_at_temperature_zero(embedded: dict[str, Path], name: str) -> None:
    changes = {"temperature": 0.0, "iterations": 12}
    own = await search(LlamaCppModel.load(embedded["F32"], engine_args=EXACT), name, 8, **changes)
    assert_same_trees(own, await search(TransformersModel.load(WEIGHTS), name, 8, **changes))


async def test_two_hundred_requests_in_flight_and_cancellations(written: dict[str, Path], folder: Path) -> None:
    model = LlamaCppModel.load(written["F32"], engine_args=EXACT)
    await assert_soak(model, TransformersModel.load(folder))
    assert not model._rows and not model._pending and not model._sequences.running


async def test_prefix_cells_are_shared_and_no_token_is_computed_twice(written: dict[str, Path]) -> None:
    model = LlamaCppModel.load(written["F32"], engine_args=EXACT)
    root = Context(None, model.encode_prompt(PROMPT))
    first = await model.sample(root, 3, Sampling(1.0, max_tokens=20, key=("share",)))
    children = [Context(sample.context, model.encode("\n5\n")) for sample in first.samples]
    await asyncio.gather(*(model.sample(child, 2, Sampling(1.0, max_tokens=10, key=(1,))) for child in children))
    usage = model.usage(root)
    distinct = root.length + 60 + 3 * 3 + 6 * 10
    assert usage.tokens_computed <= distinct
    assert usage.tokens_generated == 120 and usage.tokens_reused >= 3 * (root.length + 19)


async def test_what_nobody_holds_leaves_the_memory(written: dict[str, Path]) -> None:
    """Every token looks at all cells in use, so a long run must not become slower; what is held is not computed again."""
    model = LlamaCppModel.load(written["F32"], engine_args=EXACT | {"max_idle_tokens": 64})
    kept = Context(None, model.encode_prompt(PROMPT))
    held = await model.sample(kept, 1, Sampling(1.0, max_tokens=4, key=(0,)))
    before = model.totals.tokens_computed
    roots = prompts(model, 20)
    longest = max(root.length for root in roots) + 30
    while roots:
        await model.sample(roots.pop(), 4, Sampling(1.0, max_tokens=30, key=(1,)))
    assert model.totals.tokens_computed - before > 20 * 30
    alive = kept.length + 4
    await model.evaluate(Context(held.samples[0].context, model.encode("\n5\n")))
    assert model.usage(kept).tokens_computed <= alive + 4
    assert model._sequences.length.sum() <= 2 * (alive + 4) + 64 + 4 * longest  # the last question may linger


async def test_a_memory_that_is_too_small_for_all_serves_all_the_same(written: dict[str, Path]) -> None:
    roomy = LlamaCppModel.load(written["F32"], engine_args=EXACT)
    tight = LlamaCppModel.load(written["F32"], engine_args=EXACT | {"kv_tokens": 512, "window": 256})
    roots = prompts(roomy, 10)
    params = Sampling(1.0, max_tokens=90, key=("tight",))

    async def everything(model: LlamaCppModel) -> list[list[tuple[int, ...]]]:
        found = await asyncio.gather(*(model.sample(root, 6, params) for root in roots))
        return [[sample.token_ids for sample in one.samples] for one in found]

    own, other = await asyncio.wait_for(everything(tight), 120), await everything(roomy)
    pairs = [pair for one, two in zip(own, other, strict=True) for pair in zip(one, two, strict=True)]
    assert sum(one == two for one, two in pairs) >= 0.9 * len(pairs) == 54


async def test_the_window_is_respected(written: dict[str, Path]) -> None:
    model = LlamaCppModel.load(written["F32"], engine_args=EXACT | {"window": 48})
    short = Context(None, tuple(range(40)))
    expansion = await model.sample(short, 2, Sampling(1.0, max_tokens=100))
    assert [len(sample.token_ids) for sample in expansion.samples] == [8, 8]
    await model.evaluate(Context(None, tuple(range(48))))
    with pytest.raises(ContextTooLong):
        await model.sample(Context(None, tuple(range(48))), 1, Sampling())
    with pytest.raises(ContextTooLong):
        await model.evaluate(Context(None, tuple(range(49))))


def test_it_serves_one_event_loop_after_another(written: dict[str, Path]) -> None:
    model = LlamaCppModel.load(written["F32"], engine_args=EXACT)
    root = prompts(model, 1)[0]
    first, second = (asyncio.run(model.evaluate(root)) for _ in range(2))
    assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("sentencepiece", [False, True])
def test_the_files_own_vocabulary_serves_without_tokenizer_files(tmp_path: Path, sentencepiece: bool) -> None:
    tokenizer = sentencepiece_like_tokenizer() if sentencepiece else small_tokenizer()
    folder = save_model_folder(tmp_path / "m", tokenizer=tokenizer)
    path = export(folder, tmp_path / "out", ["F32"])[0]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path.parent / name).unlink()
    model = LlamaCppModel.load(path)
    reference = TransformersModel.load(folder)
    assert not isinstance(model.tokenizer._tokenizer, type(reference.tokenizer._tokenizer))
    for piece in ("</code>\n<output>\n", "code", " space", "\n\n", "é ∑", "日本"):
        assert model.tokenizer.decode(model.encode(piece)) == piece
    whole = model.encode_prompt(PROMPT)
    assert Tokenizer.decode(reference.tokenizer, whole).removeprefix("<s>").lstrip(" ") == PROMPT


def test_what_is_wrong_is_refused_in_one_line(tmp_path: Path, written: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"no [.]gguf file"):
        LlamaCppModel.load(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot load it"):
        LlamaCppModel.load(tmp_path, need_value=False)
    (tmp_path / "b.gguf").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"2 [.]gguf files"):
        LlamaCppModel.load(tmp_path)
    with pytest.raises(UserError, match="kv_type: expected f32, f16, q8_0"):
        LlamaCppModel.load(written["F32"], engine_args={"kv_type": "f8"})
    with pytest.raises(UserError, match="llama_cpp has no 'n_ctx'"):
        LlamaCppModel.load(written["F32"], engine_args={"n_ctx": 4})
    (tmp_path / "config.json").write_text("{}")
    save_value_head(ValueHead(64), tmp_path)
    (tmp_path / "b.gguf").write_bytes(written["F32"].read_bytes())
    with pytest.raises(UserError, match="64 inputs, the model has 128"):
        LlamaCppModel.load(tmp_path / "b.gguf")

"""The transformers engine against plain transformers, on tiny random models of several families."""

from __future__ import annotations

import asyncio
import gc
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Expansion, Sample, Sampling
from models.engines.transformers import batch
from models.engines.transformers.attention import Pass
from models.engines.transformers.engine import TransformersModel
from models.engines.transformers.network import Network
from models.engines.value_head import load_value_head
from tests.conftest import byte_level_tokenizer, save_model_folder, sentencepiece_like_tokenizer

PROMPT = "<question> What is 2 + 3? </question>\n"
WARM = Sampling(temperature=1.0, max_tokens=24, key=("seed", 1))


def plain(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logprob_of(model: torch.nn.Module, context: Context, token_ids: tuple[int, ...]) -> float:
    ids = torch.tensor([context.all_token_ids() + list(token_ids)])
    with torch.no_grad():
        table = model(ids).logits[0].log_softmax(-1)
    start = context.length - 1
    return sum(float(table[start + i, token]) for i, token in enumerate(token_ids))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
async def test_greedy_tokens_logprobs_and_values_are_those_of_plain_transformers(tmp_path: Path, family: str) -> None:
    folder = save_model_folder(tmp_path, family)
    engine, model, head = TransformersModel.load(folder), plain(folder), load_value_head(folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    expansion = await engine.sample(root, 1, Sampling(max_tokens=20))
    sample = expansion.samples[0]
    ids = torch.tensor([root.all_token_ids()])
    with torch.no_grad():
        for _ in range(20):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        hidden = model.base_model(torch.tensor([root.all_token_ids()])).last_hidden_state[0, -1]
    assert list(sample.token_ids) == ids[0, root.length :].tolist()
    assert sample.finish == "length"
    assert sample.logprob == pytest.approx(logprob_of(model, root, sample.token_ids), abs=1e-3)
    assert expansion.value == pytest.approx(head(hidden).item(), abs=1e-5)


async def test_a_continued_sample_computes_no_token_twice(model_folder: Path) -> None:
    engine, model = TransformersModel.load(model_folder), plain(model_folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    first = await engine.sample(root, 3, WARM)
    child = Context(first.samples[1].context, engine.encode("\n<output>\n5\n</output>\n"))
    value = await engine.evaluate(child)
    second = await engine.sample(child, 2, WARM)
    assert second.value == value
    for sample, context in ((first.samples[2], root), (second.samples[1], child)):
        assert sample.logprob == pytest.approx(logprob_of(model, context, sample.token_ids), abs=1e-3)
    samples = [*first.samples, *second.samples]
    distinct = root.length + len(child.token_ids) + sum(len(sample.token_ids) for sample in samples)
    assert engine.totals.tokens_computed <= distinct
    assert engine.usage(root).tokens_computed == engine.totals.tokens_computed


async def test_the_engines_time_is_divided_among_its_questions(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    roots = [Context(None, engine.encode_prompt(f"{PROMPT} {index}")) for index in range(6)]
    await asyncio.gather(*(engine.sample(root, 5, Sampling(1.0, max_tokens=20, key=(0,))) for root in roots))
    await asyncio.gather(*(engine.evaluate(Context(root, engine.encode("x"))) for root in roots))
    usages = [engine.usage(root) for root in roots]
    assert all(usage.prefill_seconds > 0 and usage.decode_seconds > 0 for usage in usages)
    for own, all_of_them in (
        (sum(usage.prefill_seconds for usage in usages), engine.totals.prefill_seconds),
        (sum(usage.decode_seconds for usage in usages), engine.totals.decode_seconds),
    ):
        assert own == pytest.approx(all_of_them)
    billed = engine.totals.prefill_seconds + engine.totals.decode_seconds
    assert 0.5 * engine.totals.busy_seconds < billed <= engine.totals.busy_seconds


async def test_samples_that_agree_share_their_computation(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    expansion = await engine.sample(root, 8, Sampling(temperature=0.0, max_tokens=10))
    assert len({sample.token_ids for sample in expansion.samples}) == 1
    assert engine.totals.tokens_computed == root.length + 9  # the tenth token is drawn, never fed
    assert engine.totals.tokens_generated == 80


async def test_requests_for_the_same_prompt_share_its_computation_too(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    greedy = Sampling(temperature=0.0, max_tokens=10)
    first, second, value = await asyncio.gather(
        engine.sample(root, 2, greedy), engine.sample(root, 1, greedy), engine.evaluate(root)
    )
    assert first.samples[0].token_ids == second.samples[0].token_ids and first.value == second.value == value
    assert engine.totals.tokens_computed == root.length + 9
    assert engine.totals.prompt_tokens == 3 * root.length and engine.totals.tokens_reused == 2 * root.length


async def expansions(engine: TransformersModel, count: int, in_flight: int) -> list[Expansion]:
    gate = asyncio.Semaphore(in_flight)

    async def one(index: int) -> Expansion:
        async with gate:
            root = Context(None, engine.encode_prompt(PROMPT[: 10 + index]))
            first = await engine.sample(root, 4, Sampling(1.0, max_tokens=9 + index % 7, key=(7, index)))
            child = Context(first.samples[index % 4].context, engine.encode(f"\n{index}\n"))
            return await engine.sample(child, 3, Sampling(0.8, 0.95, 50, max_tokens=12, key=(7, index, "0.1")))

    return await asyncio.gather(*(one(index) for index in range(count)))


def strip(expansion: Expansion) -> tuple[float | None, list[tuple[tuple[int, ...], float]]]:
    return expansion.value, [(sample.token_ids, sample.logprob) for sample in expansion.samples]


async def test_the_same_seed_gives_bitwise_the_same_whatever_runs_beside_it(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    alone = [strip(one) for one in await expansions(engine, 24, in_flight=1)]
    crowd = [strip(one) for one in await expansions(engine, 24, in_flight=24)]
    assert alone == crowd
    assert len({str(one) for one in alone}) == 24
    few_rows = TransformersModel.load(model_folder, max_rows=5)
    assert [strip(one) for one in await expansions(few_rows, 24, in_flight=24)] == alone


async def test_prompts_that_do_not_fit_one_pass_take_several(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that is bounded to a few tokens changes nothing but the number of passes."""
    one_pass = [strip(one) for one in await expansions(TransformersModel.load(model_folder), 12, in_flight=12)]
    passes: list[int] = []
    forward = Network.forward

    def counted(network: Network, work: Pass, *, with_values: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        passes.append(len(work.ids))
        return forward(network, work, with_values=with_values)

    monkeypatch.setattr(Network, "forward", counted)
    monkeypatch.setitem(batch.PREFILL_TOKENS, "cpu", 64)
    engine = TransformersModel.load(model_folder)
    assert [strip(one) for one in await expansions(engine, 12, in_flight=12)] == one_pass
    assert len(passes) > engine.totals.steps
    assert max(passes) <= 64 + 12 * 3 + 16 + len(engine.encode_prompt(PROMPT))


async def test_the_number_of_threads_is_a_key_and_one_thread_gives_the_same_text(model_folder: Path) -> None:
    before = torch.get_num_threads()
    many = await expansions(TransformersModel.load(model_folder), 4, in_flight=4)
    try:
        one = await expansions(TransformersModel.load(model_folder, engine_args={"threads": 1}), 4, in_flight=4)
    finally:
        torch.set_num_threads(before)
    assert [[sample.token_ids for sample in x.samples] for x in many] == [
        [sample.token_ids for sample in x.samples] for x in one
    ]
    with pytest.raises(UserError, match="threads must be 0 or more"):
        TransformersModel.load(model_folder, engine_args={"threads": -1})


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
async def test_compiled_layers_say_the_same(tmp_path: Path) -> None:
    folder = save_model_folder(tmp_path / "llama")
    lean, compiled = (TransformersModel.load(folder, engine_args={"compile": one}) for one in (False, True))
    for plain, fused in zip(await expansions(lean, 4, 4), await expansions(compiled, 4, 4), strict=True):
        assert fused.value == pytest.approx(plain.value, abs=1e-5)
        assert [one.token_ids for one in fused.samples] == [one.token_ids for one in plain.samples]
    with pytest.raises(UserError, match="compile does not cover GPTNeoXForCausalLM"):
        TransformersModel.load(save_model_folder(tmp_path / "other", "gpt_neox"), engine_args={"compile": True})


async def test_evicted_prefixes_are_computed_again_with_the_same_result(model_folder: Path) -> None:
    roomy = [strip(one) for one in await expansions(TransformersModel.load(model_folder), 8, in_flight=8)]
    tight_engine = TransformersModel.load(model_folder, engine_args={"max_kept_tokens": 40})
    tight = [strip(one) for one in await expansions(tight_engine, 8, in_flight=8)]
    for (value, samples), (other_value, other_samples) in zip(roomy, tight, strict=True):
        assert [ids for ids, _ in samples] == [ids for ids, _ in other_samples]
        assert value == pytest.approx(other_value, abs=1e-5)


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
async def test_the_sums_over_long_prompts_do_not_depend_on_the_batch(tmp_path: Path, key_value_heads: int) -> None:
    """Multi-query, grouped and plain heads; prompts longer than what libraries sum in one piece."""
    engine = TransformersModel.load(save_model_folder(tmp_path, key_value_heads=key_value_heads))
    long = [PROMPT * (1 + index % 9) + str(index) for index in range(12)]
    params = [Sampling(1.0, max_tokens=20 + 9 * index, key=(index,)) for index in range(12)]

    async def sampled(index: int) -> Expansion:
        return await engine.sample(Context(None, engine.encode_prompt(long[index])), 1 + index % 5, params[index])

    alone = [strip(await sampled(index)) for index in range(12)]
    assert [strip(one) for one in await asyncio.gather(*(sampled(index) for index in range(12)))] == alone


OTHER_FAMILIES = ["olmo2", "granite", "gemma", "phi3", "starcoder2", "gpt_neox", "qwen3_moe", "cohere"]


@pytest.mark.parametrize("family", OTHER_FAMILIES)
async def test_architectures_without_a_short_way_go_through_transformers(tmp_path: Path, family: str) -> None:
    folder = save_model_folder(tmp_path, family)
    engine, model = TransformersModel.load(folder), plain(folder)
    (eos,) = engine._batch.drafts.eos
    root = Context(None, engine.encode_prompt(PROMPT))
    first = await engine.sample(root, 3, WARM)
    child = Context(first.samples[0].context, engine.encode("\n5\n"))
    second = await engine.sample(child, 2, WARM)
    for context, samples in ((root, first.samples), (child, second.samples)):
        for sample in samples:
            ended = (eos,) if sample.finish == "eos" else ()
            assert sample.logprob == pytest.approx(logprob_of(model, context, sample.token_ids + ended), abs=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
async def test_the_short_way_and_transformers_agree(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model_folder(tmp_path, family)
    short = await expansions(TransformersModel.load(folder), 6, 6)
    monkeypatch.setattr("models.engines.transformers.network.supports", lambda model: False)
    for one, other in zip(short, await expansions(TransformersModel.load(folder), 6, 6), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-5)
        assert [sample.token_ids for sample in one.samples] == [sample.token_ids for sample in other.samples]


async def test_samples_of_one_token(model_folder: Path) -> None:
    engine, model = TransformersModel.load(model_folder), plain(model_folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    for sample in (await engine.sample(root, 4, Sampling(1.0, max_tokens=1, key=(3,)))).samples:
        assert sample.logprob == pytest.approx(logprob_of(model, root, sample.token_ids), abs=1e-3)


async def test_entries_are_freed_when_nobody_holds_the_context(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    expansion = await engine.sample(root, 4, WARM)
    assert engine.kept_tokens > root.length
    del expansion
    await asyncio.sleep(0.05)  # the engine's own round ends
    gc.collect()
    assert engine.kept_tokens == root.length
    del root
    gc.collect()
    assert engine.kept_tokens == 0


async def sampled(engine: TransformersModel, stop: tuple[str, ...], n: int = 12) -> tuple[Sample, ...]:
    root = Context(None, engine.encode_prompt(PROMPT))
    params = Sampling(temperature=2.0, max_tokens=60, stop=stop, key=(5,))
    return (await engine.sample(root, n, params)).samples


async def test_stop_strings_end_a_sample_and_are_told_apart_from_its_text(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    stop = ("a", "e", "7", ">", "é")
    for sample in await sampled(engine, stop):
        assert not any(one in sample.text for one in stop)
        if sample.finish == "stop":
            assert sample.stop in stop
            assert engine.tokenizer.decode(sample.token_ids) == sample.text + sample.stop + sample.overflow
            assert sample.ends[-1] == len(sample.text + sample.stop + sample.overflow)
    assert "stop" in {sample.finish for sample in await sampled(engine, stop)}


async def test_stop_strings_longer_than_a_token_are_found_across_tokens(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    free = await sampled(engine, ())
    text = free[0].text
    wanted = text[5:8]
    again = await sampled(engine, (wanted,))
    assert again[0].text == text[: text.index(wanted)] and again[0].stop == wanted


async def test_the_window_is_respected(tmp_path: Path) -> None:
    engine = TransformersModel.load(save_model_folder(tmp_path, positions=48))
    short = Context(None, tuple(range(40)))
    expansion = await engine.sample(short, 2, Sampling(1.0, max_tokens=100))
    assert [len(sample.token_ids) for sample in expansion.samples] == [8, 8]
    await engine.evaluate(Context(None, tuple(range(48))))
    with pytest.raises(ContextTooLong):
        await engine.sample(Context(None, tuple(range(48))), 1, WARM)
    with pytest.raises(ContextTooLong):
        await engine.evaluate(Context(None, tuple(range(49))))


async def test_a_cancelled_request_leaves_the_others_alone(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    root = Context(None, engine.encode_prompt(PROMPT))
    expected = await engine.sample(root, 2, WARM)
    other = Context(None, engine.encode_prompt(PROMPT + PROMPT))
    doomed = asyncio.create_task(engine.sample(other, 4, Sampling(1.0, max_tokens=400)))
    while not engine._batch.rows:  # it runs
        await asyncio.sleep(0)
    kept = asyncio.create_task(engine.sample(root, 2, WARM))
    await asyncio.sleep(0)
    doomed.cancel()
    assert strip(await kept) == strip(expected)
    with pytest.raises(asyncio.CancelledError):
        await doomed


async def test_a_broken_step_reaches_everybody_who_waits_and_the_engine_goes_on(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    impossible = Context(None, (1 << 40,))
    results = await asyncio.gather(
        engine.sample(impossible, 1, WARM), engine.evaluate(impossible), return_exceptions=True
    )
    assert all(isinstance(result, Exception) for result in results)
    assert (await engine.sample(Context(None, (5, 6)), 1, WARM)).samples


def test_an_engine_serves_one_event_loop_after_another(model_folder: Path) -> None:
    engine = TransformersModel.load(model_folder)
    first, second = (asyncio.run(expansions(engine, 2, 2)) for _ in range(2))
    assert [strip(one) for one in first] == [strip(one) for one in second]


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_like_tokenizer])
async def test_pieces_of_text_are_encoded_as_they_stand_in_the_prompt(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    engine = TransformersModel.load(save_model_folder(tmp_path, tokenizer=make()))
    text = engine.tokenizer
    for piece in ("</code>\n<output>\n", "\n<output>\n5 é ∑\n", "code", " space", "", "\n\n", "日本"):
        ids = text.encode(piece)
        assert text.decode(ids) == piece
        assert not ids or text.ends(ids, piece)[-1] == len(piece)
    whole = text.encode_start(PROMPT)
    assert text._text(whole).removeprefix("<s>").lstrip(" ") == PROMPT


def test_what_is_missing_in_a_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        TransformersModel.load(tmp_path / "none")
    with pytest.raises(UserError, match=r"no config\.json"):
        TransformersModel.load(tmp_path)
    folder = save_model_folder(tmp_path / "m")
    (folder / "value_head.safetensors").unlink()
    with pytest.raises(UserError, match=r"save_value_head\.py"):
        TransformersModel.load(folder)
    TransformersModel.load(folder, need_value=False)
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be loaded"):
        TransformersModel.load(folder, need_value=False)

"""Prompts that begin alike: computed once a run, never copied, and the same bits whoever computed them."""

from __future__ import annotations

import asyncio
import gc
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mcts.model import Context, Expansion, Sampling
from models.engines.transformers.engine import TransformersModel
from models.engines.transformers.kv import PAGE
from models.engines.transformers.prefixes import Beginnings, common
from tests.conftest import save_model_folder

FEW_SHOT = "".join(f"Question: What is {i} + {i * i}?\nAnswer: {i + i * i}\n\n" for i in range(3, 11))  # 300 tokens
COUNT = 6


def question(index: int) -> str:
    return f"{FEW_SHOT}Question: {'How many? ' * (index % 4)}What is {index * 7919} - {index}?\nAnswer:"


def strip(expansion: Expansion) -> tuple[float | None, list[tuple[tuple[int, ...], float]]]:
    return expansion.value, [(sample.token_ids, sample.logprob) for sample in expansion.samples]


async def solve(engine: TransformersModel, index: int) -> tuple[Context, list[object]]:
    """A root, three steps of very different lengths, and two prompts on the second of them, one after another."""
    root = Context(None, engine.encode_prompt(question(index)))
    first = await engine.sample(root, 4, Sampling(1.0, max_tokens=5 + 19 * (index % 5), key=(index,)))
    found: list[object] = [strip(first)]
    for text in (f"\n{index}\n", "\nIs that so?\n"):
        child = Context(first.samples[1].context, engine.encode(text))
        found.append(await engine.evaluate(child))
        found.append(strip(await engine.sample(child, 3, Sampling(0.9, max_tokens=20, key=(index, text)))))
    return root, found


async def in_flight(engine: TransformersModel, count: int) -> list[list[object]]:
    gate = asyncio.Semaphore(count)

    async def one(index: int) -> list[object]:
        async with gate:
            return (await solve(engine, index))[1]

    return await asyncio.gather(*(one(index) for index in range(COUNT)))


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
async def test_the_same_bits_whoever_computed_the_beginning(tmp_path: Path, key_value_heads: int) -> None:
    folder = save_model_folder(tmp_path, key_value_heads=key_value_heads, positions=1024)
    alone = [(await solve(TransformersModel.load(folder), index))[1] for index in range(COUNT)]
    assert len({str(one) for one in alone}) == COUNT
    for count in (1, 3, COUNT):
        assert await in_flight(TransformersModel.load(folder), count) == alone
    assert await in_flight(TransformersModel.load(folder, engine_args={"max_idle_tokens": 0}), 3) == alone
    assert await in_flight(TransformersModel.load(folder, max_rows=5), COUNT) == alone


@pytest.mark.parametrize("count", [1, 4, COUNT])
async def test_the_common_beginning_is_computed_once_a_run(tmp_path: Path, count: int) -> None:
    engine = TransformersModel.load(save_model_folder(tmp_path, positions=1024))
    await in_flight(engine, count)
    roots = [engine.encode_prompt(question(index)) for index in range(COUNT)]
    known: set[tuple[int, ...]] = set()
    distinct = 0
    for root in roots:
        beginnings = {root[: end + 1] for end in range(len(root))}
        distinct += len(beginnings - known)
        known |= beginnings
    usage = engine.totals
    decoded = usage.tokens_generated
    children = sum(2 * 13 for _ in range(COUNT)) + COUNT * 4
    assert distinct <= usage.tokens_computed <= distinct + decoded + children + COUNT * PAGE
    assert distinct < 0.4 * sum(len(root) for root in roots)
    assert usage.tokens_reused > (COUNT - 1) * len(FEW_SHOT)


async def test_greedy_tokens_after_a_shared_beginning_are_those_of_plain_transformers(tmp_path: Path) -> None:
    folder = save_model_folder(tmp_path, positions=1024)
    engine = TransformersModel.load(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    contexts = [Context(None, engine.encode_prompt(question(index))) for index in range(6)]
    found = await asyncio.gather(*(engine.sample(one, 1, Sampling(max_tokens=90)) for one in contexts))
    for context, expansion in zip(contexts, found, strict=True):
        ids = torch.tensor([context.all_token_ids()])
        with torch.no_grad():
            for _ in range(90):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert list(expansion.samples[0].token_ids) == ids[0, context.length :].tolist()


async def test_an_expansion_takes_pages_for_its_own_tokens_only(tmp_path: Path) -> None:
    engine = TransformersModel.load(save_model_folder(tmp_path, positions=1024))
    pages = engine._batch.pages
    root = Context(None, engine.encode_prompt(question(1)))
    first = await engine.sample(root, 8, Sampling(1.0, max_tokens=20, key=(1,)))
    before = pages.used
    children = [Context(sample.context, engine.encode("\n5\n")) for sample in first.samples]
    await asyncio.gather(*(engine.sample(child, 4, Sampling(1.0, max_tokens=10, key=(2,))) for child in children))
    own = (20 + 3 + PAGE - 1) // PAGE + 1  # and the page that is shared in part
    assert 8 <= pages.used - before <= 8 * own
    assert root.length > 20 * PAGE


async def test_all_pages_come_back(tmp_path: Path) -> None:
    engine = TransformersModel.load(save_model_folder(tmp_path, positions=1024), engine_args={"max_idle_tokens": 0})
    await in_flight(engine, COUNT)
    await asyncio.sleep(0.05)
    gc.collect()
    assert engine.kept_tokens == 0
    engine._batch.store.collect()
    last = -(-len(engine.encode_prompt(question(3))) // PAGE)
    assert engine._batch.pages.used <= 1 + last  # padding, and the beginning that was used last


def test_beginnings_against_a_plain_search() -> None:
    """Random roots with common beginnings: the longest match, for whole and half pages."""
    rng, size = random.Random(1), 4
    held: dict[int, int] = {}

    def hold(pages: object) -> None:
        for page in pages:  # type: ignore[attr-defined]
            held[page] = held.get(page, 0) + 1

    def release(pages: object) -> None:
        for page in pages:  # type: ignore[attr-defined]
            held[page] -= 1

    beginnings = Beginnings(size, 40, hold, release)
    live: list[tuple[tuple[int, ...], object]] = []
    for number in range(400):
        ids = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 30)))
        found, pages = beginnings.match(ids)
        longest = max((len(_agreed(ids, other)) for other, _ in live), default=0)
        assert found >= longest and len(pages) == -(-found // size)
        assert all(held[page] > 0 for page in pages)
        mine = pages[: found // size] + [1000 * number + i for i in range(-(-len(ids) // size) - found // size)]
        live.append((ids, beginnings.add(ids, mine)))
        if len(live) > 6:
            beginnings.leave(live.pop(rng.randrange(len(live)))[1])  # type: ignore[arg-type]
    for _, one in live:
        beginnings.leave(one)  # type: ignore[arg-type]
    assert sum(held.values()) <= 40 // size + 8


def _agreed(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return first[: common(first, second)]

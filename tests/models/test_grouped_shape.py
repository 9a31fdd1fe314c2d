"""A random model with the widths of SmolLM2-135M: nine query heads on three, tied embeddings, two layers of thirty."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from mcts.model import Context, Expansion, Sampling
from models.engines.transformers.engine import TransformersModel
from models.engines.value_head import ValueHead, load_value_head, save_value_head
from tests.conftest import byte_level_tokenizer

FEW_SHOT = "".join(f"Question: How many is {i} and {i}?\n```python\nprint({i} + {i})\n```\n\n" for i in range(8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grouped")
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=576, intermediate_size=1536, num_hidden_layers=2,
        num_attention_heads=9, num_key_value_heads=3, head_dim=64, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_value_head(ValueHead(576), folder)
    return folder


async def solve(engine: TransformersModel, index: int) -> list[object]:
    root = Context(None, engine.encode_prompt(f"{FEW_SHOT}Question: {index}?\n"))
    first = await engine.sample(root, 3, Sampling(0.7, max_tokens=4 + index, key=(index,)))
    child = Context(first.samples[index % 3].context, engine.encode("\n5\n"))
    second = await engine.sample(child, 2, Sampling(0.7, max_tokens=6, key=(index, 1)))
    return [(one.value, [(sample.token_ids, sample.logprob) for sample in one.samples]) for one in (first, second)]


async def test_the_same_bits_alone_and_together(folder: Path) -> None:
    engine = TransformersModel.load(folder)
    together = await asyncio.gather(*(solve(engine, index) for index in range(5)))
    assert engine.totals.tokens_computed < len(FEW_SHOT) + 5 * 60
    for index in (0, 4):
        assert await solve(TransformersModel.load(folder), index) == together[index]


async def test_greedy_tokens_and_values_are_those_of_plain_transformers(folder: Path) -> None:
    engine, head = TransformersModel.load(folder), load_value_head(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    roots = [Context(None, engine.encode_prompt(f"{FEW_SHOT}Question: {index}?\n")) for index in range(2)]
    found: list[Expansion] = await asyncio.gather(*(engine.sample(root, 1, Sampling(max_tokens=5)) for root in roots))
    for root, expansion in zip(roots, found, strict=True):
        ids = torch.tensor([root.all_token_ids()])
        with torch.no_grad():
            hidden = model.base_model(ids).last_hidden_state[0, -1]
            for _ in range(5):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert list(expansion.samples[0].token_ids) == ids[0, root.length :].tolist()
        assert expansion.value == pytest.approx(head(hidden).item(), abs=1e-4)

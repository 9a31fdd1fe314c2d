"""What every engine must do alike: compared with the transformers engine on the same weights."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.data.questions import read_questions
from mcts.interpreter import ForkInterpreter
from mcts.markup import SftMarkup
from mcts.model import Context, Expansion, LanguageModel, Sampling
from mcts.search.driver import Solver, solve_all
from models.engines.config import load_config
from models.engines.transformers.engine import TransformersModel

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "models" / "tiny" / "weights"
HELD_OUT = ROOT / "models" / "tiny" / "data" / "heldout.jsonl"
PROMPT = "<question> What is 2 + 3? </question>\n"
TOLERANCE = 1e-3  # of values and log-probabilities in float32


def small_tokenizer() -> Any:
    """320 ids: bytes, markup, some merges."""
    from models.tiny.tokenizer import build_tokenizer

    return build_tokenizer([json.loads(line)["question"] for line in HELD_OUT.open(encoding="utf-8")], 320)


def build_folder(folder: Path, family: str, *, padding: int = 0, shards: bool = False, published: bool = False) -> Path:
    """A tiny random model with heads of 32 and a value head. padding: ids behind the tokenizer's; shards: several
    files with an index; published: value_head.pth instead of ours."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from models.engines.value_head import SAFETENSORS_NAME, ValueHead, save_value_head

    tokenizer = small_tokenizer()
    sizes = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer) + padding, **sizes, **heads, **ids)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder, max_shard_size="200KB" if shards else "1GB")
    tokenizer.save_pretrained(folder)
    save_value_head(head := ValueHead(128), folder)
    if published:
        (folder / SAFETENSORS_NAME).unlink()
        torch.save({f"v_head.{name}": tensor for name, tensor in head.state_dict().items()}, folder / "value_head.pth")
    return folder


def prompts(model: Any, count: int) -> list[Context]:
    rng = random.Random(4)
    texts = ["".join(rng.choice("abc xyz 0123 ∑é\n") for _ in range(5 + 4 * i)) for i in range(count)]
    return [Context(None, model.encode_prompt(PROMPT[: 10 + i] + text)) for i, text in enumerate(texts)]


async def assert_like_transformers(model: Any, reference: TransformersModel, tolerance: float = TOLERANCE) -> None:
    """Greedy tokens, log-probabilities, values and stop strings of both, on prompts of many lengths and one child."""
    free = Sampling(max_tokens=24, key=("parity",))
    for index, root in enumerate(prompts(model, 12)):
        params = replace(free, stop=("a", "9", " ")) if index % 2 else free
        own, other = await asyncio.gather(model.sample(root, 2, params), reference.sample(root, 2, params))
        assert own.value == pytest.approx(other.value, abs=tolerance)
        for one, two in zip(own.samples, other.samples, strict=True):
            assert (one.token_ids, one.text, one.finish, one.stop, one.overflow, one.ends) == (
                two.token_ids, two.text, two.finish, two.stop, two.overflow, two.ends,
            )  # fmt: skip
            assert one.logprob == pytest.approx(two.logprob, abs=tolerance)
        child = Context(own.samples[0].context, model.encode("\n<output>\n5\n</output>\n"))
        assert await model.evaluate(child) == pytest.approx(await reference.evaluate(child), abs=tolerance)


async def search(model: LanguageModel, name: str, count: int, **changes: Any) -> list[dict[str, Any]]:
    """The records of the first held-out questions by configs/tiny/`name`.yaml."""
    config = load_config(ROOT / "configs" / "tiny" / f"{name}.yaml").model_copy(update=changes)
    async with ForkInterpreter(timeout_seconds=60) as interpreter:
        solver = Solver(config, model, SftMarkup(), interpreter)
        questions = itertools.islice(read_questions(HELD_OUT), count)
        found = {question.index: record async for question, record in solve_all(solver, questions, count)}
    return [found[index] for index in sorted(found)]


def assert_same_trees(own: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float = TOLERANCE) -> None:
    """Every node with the same tag, tokens, text, answer and visits; values and priors within `tolerance`."""
    for one, two in zip(own, other, strict=True):
        assert one["react"].keys() == two["react"].keys()
        for tag, node in one["react"].items():
            if tag == "solutions":
                continue
            twin = two["react"][tag]
            for key in ("token_ids", "text", "final_answer", "visit_count", "terminal", "finish"):
                assert node.get(key) == twin.get(key), (tag, key)
            for key in ("value", "q_value", "prior"):
                assert node.get(key) == pytest.approx(twin.get(key), abs=tolerance), (tag, key)
        assert json.dumps(one["prediction"] and one["prediction"]["final_answer"]) == json.dumps(
            two["prediction"] and two["prediction"]["final_answer"]
        )


async def soak(model: Any, count: int) -> list[Expansion | float | None]:
    """`count` requests in flight, every fifth cancelled at some moment; the results of the others in order."""
    roots = prompts(model, count // 10)

    async def one(index: int) -> Expansion | float | None:
        root = roots[index % len(roots)]
        params = Sampling(1.0, max_tokens=8 + index % 23, stop=("q",), key=("soak", index))
        work = model.evaluate(root) if index % 3 == 0 else model.sample(root, 1 + index % 3, params)
        if index % 5:
            return await work
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0.002 * index)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return None
        return None

    return await asyncio.gather(*(one(index) for index in range(count)))


async def assert_soak(model: Any, reference: TransformersModel, count: int = 200) -> None:
    """Everybody who was not cancelled is served, with the right value, and the engine works on afterwards."""
    results = await asyncio.wait_for(soak(model, count), 300)
    values = [await reference.evaluate(root) for root in prompts(reference, count // 10)]
    for index, result in enumerate(results):
        assert (result is None) == (index % 5 == 0)
        if result is None:
            continue
        value = result if isinstance(result, float) else result.value
        assert value == pytest.approx(values[index % len(values)], abs=TOLERANCE)
        if isinstance(result, Expansion):
            assert len(result.samples) == 1 + index % 3
            assert all(len(sample.token_ids) <= 8 + index % 23 for sample in result.samples)
    await assert_like_transformers(model, reference)


def wait_for(url: str) -> None:
    """Until a server answers."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} never answered")

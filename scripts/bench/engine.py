"""The transformers engine: plain decoding beside `generate` and the floor, and the same engine inside a search.

    python -m scripts.bench.engine [--json FILE]

Plain decoding: 100 prompt tokens and 128 new ones a sequence, temperature 1, float32, the embedded model. The floor is
the time of the bare matrix products and of the products over the cache, nothing between them. Where ARBOR_REAL_MODEL
names the folder that `make test-real` prepares, SmolLM2-135M beside `generate` as well, 32 new tokens. Inside a search:
positions decoded per second in which the engine works, against plain decoding of as many rows with prompts as long;
then all positions, those of the new steps' prompts too. What the code prints is known from a search before, so that the
engine has the cores to itself as in plain decoding.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from arbor.assembly import load_model, open_solver
from eval.data.questions import read_questions
from eval.report.columns import DEMO, columns
from mcts.interpreter import Execution, Interpreter, State
from mcts.model import Context, Sampling
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter, read_tree_lines
from models.engines.config import RunConfig, load_config
from models.engines.transformers.engine import Totals, TransformersModel
from models.engines.transformers.network import ATTENTION, register_attention
from scripts.bench.common import Claim, at_least, at_most, beside, main

FOLDER = Path("models/tiny/weights")
PROBLEMS = Path("models/tiny/data/dev.jsonl")
PROMPT_TOKENS, NEW_TOKENS = 100, 128
RUNS = 3  # the fastest counts
SEARCHES = {"sbs_1_5": 48, "sbs_3_5": 24, "mcts": 8}  # questions of each


def endless(attention: str, folder: Path = FOLDER) -> tuple[torch.nn.Module, object]:
    """A model without an end-of-sequence token, so that every sequence has the same length."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    return model, tokenizer


def prompts(count: int, tokens: int) -> list[list[int]]:
    rng = random.Random(count)
    return [[rng.randrange(700) for _ in range(tokens)] for _ in range(count)]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alone(work: Callable[..., float], *arguments: Any) -> float:
    """What `work` measured in a thread of its own: OpenMP's threads end with it, and do not slow down the next."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work, *arguments).result()


def generate(count: int, new_tokens: int = NEW_TOKENS, folder: Path = FOLDER) -> float:
    """Tokens per second of transformers' own loop."""
    model, _ = endless("sdpa", folder)
    ids = torch.tensor(prompts(count, PROMPT_TOKENS))
    settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}

    def work() -> None:
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, **settings)  # type: ignore[operator]
        assert out.shape == (count, PROMPT_TOKENS + new_tokens)

    return count * new_tokens / min(seconds(work) for _ in range(RUNS))


def decode(
    count: int, prompt_tokens: int = PROMPT_TOKENS, new_tokens: int = NEW_TOKENS, folder: Path = FOLDER
) -> float:
    """Tokens per second of the engine, which works in a thread of its own."""
    register_attention()
    with ThreadPoolExecutor(1) as executor:
        model, tokenizer = executor.submit(endless, ATTENTION, folder).result()
        engine = TransformersModel(model, tokenizer, max_rows=count, executor=executor)

        async def work() -> None:
            params = [Sampling(1.0, max_tokens=new_tokens, key=(index,)) for index in range(count)]
            contexts = [Context(None, tuple(ids)) for ids in prompts(count, prompt_tokens)]
            out = await asyncio.gather(*(engine.sample(c, 1, p) for c, p in zip(contexts, params, strict=True)))
            assert all(len(one.samples[0].token_ids) == new_tokens for one in out)

        return count * new_tokens / min(seconds(lambda: asyncio.run(work())) for _ in range(RUNS))


def floor(count: int) -> float:
    """Tokens per second if a step were its matrix products alone, at the mean length of the cache."""
    model, _ = endless("sdpa")
    config: Any = model.config
    heads, dim = config.num_key_value_heads, config.head_dim
    groups, length = config.num_attention_heads // heads, PROMPT_TOKENS + NEW_TOKENS // 2
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {weight.shape[1]: torch.randn(count, weight.shape[1]) for weight in weights}
    query = torch.randn(count * heads, groups, dim)
    caches = [torch.randn(2, count * heads, length, dim) for _ in range(config.num_hidden_layers)]

    def step() -> None:
        for weight in weights:
            torch.mm(inputs[weight.shape[1]], weight.t())
        for keys, values in caches:
            torch.bmm(torch.bmm(query, keys.mT), values)

    with torch.inference_mode():
        step()
        return count / min(seconds(step) for _ in range(20))


def plain() -> list[Claim]:
    claims = []
    for count, bar in ((64, 2.0), (256, 2.0)):
        rival, ours, limit = alone(generate, count), decode(count), alone(floor, count)
        claims.append(at_least(f"plain decoding, {count} sequences, against generate", ours, rival, bar, "token/s"))
        claims.append(beside(f"plain decoding, {count} sequences, of the floor", ours, limit, "token/s"))
    if (real := os.environ.get("ARBOR_REAL_MODEL")) is not None:
        for count in (16, 64):
            rival = alone(generate, count, 32, Path(real) / "transformers")
            ours = decode(count, PROMPT_TOKENS, 32, Path(real) / "transformers")
            claim = f"SmolLM2-135M, plain decoding, {count} sequences, against generate"
            claims.append(at_least(claim, ours, rival, 1.0, "token/s"))
    return claims


class Recorded:
    """`Interpreter` that runs a snippet in `inner` once, and knows what came of it when it sees it again."""

    def __init__(self) -> None:
        self.inner: Interpreter | None = None
        self._known: dict[tuple[str, ...], Execution] = {}

    async def run(self, state: State | None, code: str) -> Execution:
        before: tuple[str, ...] = state.node if state is not None else ()  # type: ignore[assignment]
        history = (*before, code)
        if history not in self._known:
            assert self.inner is not None
            real = self._known[before].state if before else None
            self._known[history] = await self.inner.run(real, code)
        return replace(self._known[history], state=State(history))


def ratio(path: Path) -> float:
    """Tokens computed over the distinct tokens of the trees of a file."""
    records = [record for _, record in read_tree_lines(path)]
    return columns(DEMO)["tokens_over_distinct"].figure(records) or 0.0


async def search(config: RunConfig, questions: int, path: Path, interpreter: Recorded) -> tuple[float, Totals]:
    model = load_model(config)
    assert isinstance(model, TransformersModel)
    writer = TreeWriter(path, "bench")
    writer.open(resume=False)
    async with open_solver(config, model, {"fingerprint": "bench"}, 0) as solver:
        interpreter.inner, solver.interpreter = solver.interpreter, interpreter
        asked = itertools.islice(read_questions(PROBLEMS), questions)
        await run_file(solver, asked, writer, config.questions_in_flight, lambda record: None)
    return ratio(path), model.totals


def inside(folder: Path) -> list[Claim]:
    """The second search of the same trees is measured: the cores run no code meanwhile."""
    claims = []
    for name, questions in SEARCHES.items():
        config = load_config(Path("configs/tiny") / f"{name}.yaml", ["engine_args={}", f"batch_size={questions}"])
        interpreter = Recorded()
        asyncio.run(search(config, questions, folder / f"{name}.code.jsonl", interpreter))
        found, totals = asyncio.run(search(config, questions, folder / f"{name}.jsonl", interpreter))
        computed = f"{name}: tokens computed over distinct tokens, {questions} questions"
        claims.append(at_most(computed, found, 1.0, 1.02))
        decoded = totals.tokens_computed - (totals.prompt_tokens - totals.tokens_reused)
        rows, length = round(decoded / totals.steps), round(totals.prompt_tokens / totals.requests)
        rival = decode(rows, length, 32)
        claim = f"{name}: decoding inside the search against plain decoding, {rows} rows after {length} tokens"
        claims.append(at_least(claim, decoded / totals.busy_seconds, rival, 0.9, "token/s"))
        every = f"{name}: all positions inside the search against those of plain decoding"
        claims.append(beside(every, totals.tokens_computed / totals.busy_seconds, rival, "token/s"))
    return claims


def measure() -> list[Claim]:
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        return [*plain(), *inside(Path(folder))]


if __name__ == "__main__":
    main(__doc__, measure)

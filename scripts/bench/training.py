"""Training on trees against training on their unrolled paths: tokens, and seconds of a forward and backward pass.

python -m scripts.bench.training [--json FILE]

The trees are searched here (MCTS for training, the embedded model, problems of the training split); up to 4 correct and
4 wrong paths of each become one unit. Two models: the embedded one, and a random Llama of 6 M parameters, whose
products weigh more. Losses and gradients are compared too.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, logging

from arbor.assembly import describe, load_markup, load_model, open_solver
from mcts.question import Question
from mcts.search.driver import solve_all
from models.engines.config import RunConfig, load_config
from models.engines.text import Tokenizer
from models.engines.value_head import ValueHead
from models.tiny.problems import generate
from models.training.data import Kept, Totals, Unit, make_batch, read_units, tree_tokens
from models.training.examples import ExampleRules, Extraction, Origin, Writer
from models.training.folders import load_policy_value
from models.training.losses import PolicyValue, Weights
from scripts.bench.common import Claim, at_least, at_most, main

CONFIG = "configs/tiny/mcts_train.yaml"
PROBLEMS, SIMULATIONS, REPEATS, QUESTIONS_A_BATCH = 8, 16, 3, 4


async def search(config: RunConfig) -> list[dict[str, Any]]:
    problems = generate(5, PROBLEMS, "train")
    items = [{"question": problem.question, "answer": str(problem.answer)} for problem in problems]
    questions = [Question(index, item, f"question {index}") for index, item in enumerate(items)]
    async with open_solver(config, load_model(config), describe(config), 0) as solver:
        found = [record async for _, record in solve_all(solver, questions, 8)]
    return sorted(found, key=lambda record: record["meta"]["index"])


def searched_units() -> list[Unit]:
    """One unit a question, from trees that are searched here."""
    config = load_config(CONFIG, [f"iterations={SIMULATIONS}"])
    markup = load_markup(config)
    writer = Writer(Tokenizer(AutoTokenizer.from_pretrained(config.model_dir)), markup)
    extraction = Extraction(ExampleRules(), writer, Origin(markup, config.prompt_wrap))
    records = asyncio.run(search(config))
    lines = [line for i, record in enumerate(records) for line in extraction.examples(f"question {i}", record)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return read_units([path], 1 << 30, Kept(1 << 30), by_group=True)


def larger_model() -> PolicyValue:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=768, hidden_size=320, intermediate_size=960, num_hidden_layers=4, num_attention_heads=5,
        num_key_value_heads=5, max_position_embeddings=2048, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return PolicyValue(LlamaForCausalLM(config), ValueHead(320, dropout=0.0))


def passes(module: PolicyValue, units: list[Unit], shared: bool) -> tuple[float, float, torch.Tensor]:
    """Seconds of all batches forward and backward (batch building included), the loss, the flattened gradient."""
    module.zero_grad()
    weights, totals, loss_sum = Weights(), Totals.of(units), 0.0
    started = time.perf_counter()
    for start in range(0, len(units), QUESTIONS_A_BATCH):
        batch = make_batch(units[start : start + QUESTIONS_A_BATCH], shared)
        loss = weights.combine(weights.means(module(batch, weights)[0], totals))
        loss.backward()
        loss_sum += loss.item()
    seconds = time.perf_counter() - started
    return seconds, loss_sum, torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def compare(name: str, module: PolicyValue, units: list[Unit]) -> list[Claim]:
    runs = {shared: [passes(module, units, shared) for _ in range(REPEATS)] for shared in (False, True)}
    seconds = {shared: median(run[0] for run in found) for shared, found in runs.items()}
    (_, loss, gradient), (_, tree_loss, tree_gradient) = runs[False][0], runs[True][0]
    apart = max(abs(loss - tree_loss), float((gradient - tree_gradient).abs().max()))
    note = f"{name}: {seconds[True]:.2f} s on trees, {seconds[False]:.2f} s unrolled"
    return [
        at_least("updates a second on trees over unrolled", 1 / seconds[True], 1 / seconds[False], 1.0, "1/s", note),
        at_most("largest difference of loss and gradients, trees against unrolled", apart, 1e-5, 1.0, "", name),
    ]


def measure() -> list[Claim]:
    logging.disable_progress_bar()
    units = searched_units()
    together = sum(map(tree_tokens, units))
    apart = sum(unit.tokens for unit in units)
    paths = sum(len(unit.sequences) for unit in units)
    note = f"{paths} paths of {len(units)} questions"
    claims = [at_least("tokens of the unrolled paths over tokens of the trees", apart, together, 1.5, "tokens", note)]
    embedded = load_policy_value("models/tiny/weights")
    return [*claims, *compare("embedded model", embedded, units), *compare("6 M parameters", larger_model(), units)]


if __name__ == "__main__":
    main(__doc__, measure)

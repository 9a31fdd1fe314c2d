"""Trains the embedded model from nothing.

    python -m models.tiny.train [--seed S] [--output DIR]

Three stages, each kept under runs/ when it is done, so that a command started again goes on where it stopped:
1. policy: a small Llama learns to imitate the weak solver of `demonstrations.py`;
2. rollouts: that policy attempts training problems through the engine and the interpreter of a search, several
   continuations at every step, so that a state is worth the mean outcome of what was tried from it;
3. value: the value head and the model learn those returns while demonstrations are replayed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from mcts.config import Config
from mcts.expansion import Expander
from mcts.interpreter import ForkInterpreter
from mcts.markup import SftMarkup
from mcts.model import ContextTooLong
from mcts.tree import Node
from models.tiny.demonstrations import Solution, demonstrate
from models.tiny.learning import Batch, Example, batches, fit
from models.tiny.problems import SEEDS, Problem, generate, stream
from models.tiny.tokenizer import build_tokenizer
from models.transformers_engine import TransformersModel
from models.value_head import ValueHead, save_value_head

STOP = ("\n</code>", "</code>", "</step>")


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the result.

    widths: continuations sampled at each step of a rollout tree. demonstrated: share of demonstrations among the
    paths of the value stage. Learning rates are pairs (Muon, AdamW).
    """

    seed: int = 1
    hidden: int = 128
    layers: int = 4
    feed_forward: int = 384
    head_dim: int = 32
    key_value_heads: int = 2
    window: int = 1024
    batch: int = 16
    policy_updates: int = 1500
    policy_rates: tuple[float, float] = (0.02, 3e-3)
    problems: int = 700
    widths: tuple[int, ...] = (3, 2, 1, 1, 1, 1, 1, 1)
    temperature: float = 1.0
    demonstrated: float = 0.5
    value_rates: tuple[float, float] = (0.006, 1e-3)
    value_weight: float = 1.0

    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


def reporter(name: str) -> Callable[[str], None]:
    """Prints what a stage does, with the time since it began."""
    started = time.monotonic()
    return lambda message: print(f"{name} [{time.monotonic() - started:4.0f} s]: {message}", flush=True)


# --- policy


def demonstrations(recipe: Recipe, purpose: str) -> Iterator[Solution]:
    """Endless fresh demonstrations on training problems."""
    rng = random.Random(f"{purpose} {recipe.seed}")
    return (demonstrate(problem, rng) for problem in stream(rng.getrandbits(32), "train"))


def demonstration_example(tokenizer: PreTrainedTokenizerFast, solution: Solution) -> Example:
    """Token ids as a search joins them: prompt, sampled step and environment are encoded one by one."""
    token_ids: list[int] = tokenizer.encode(solution.prompt, add_special_tokens=False)
    learned = [False] * len(token_ids)
    for written, observed in solution.steps:
        for text, by_policy in ((written, True), (observed, False)):
            piece = tokenizer.encode(text, add_special_tokens=False)
            token_ids += piece
            learned += [by_policy] * len(piece)
    return Example(tuple(token_ids), tuple(learned))


def demonstration_batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, purpose: str) -> Iterator[Batch]:
    examples = (demonstration_example(tokenizer, solution) for solution in demonstrations(recipe, purpose))
    return batches(examples, recipe.batch, random.Random(f"{purpose} batches {recipe.seed}"))


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    heads = recipe.hidden // recipe.head_dim
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        intermediate_size=recipe.feed_forward,
        num_attention_heads=heads,
        num_key_value_heads=recipe.key_value_heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=recipe.window,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def save(model: Any, tokenizer: Any, head: ValueHead, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_value_head(head, folder)


def train_policy(recipe: Recipe, folder: Path) -> None:
    report = reporter("policy")
    torch.manual_seed(recipe.seed)
    shown = islice(demonstrations(recipe, "tokenizer"), 4000)
    tokenizer = build_tokenizer(s.prompt + "".join(a + b for a, b in s.steps) for s in shown)
    model = new_model(recipe, tokenizer)
    report(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} token types")
    source = demonstration_batches(recipe, tokenizer, "policy")
    head = ValueHead(recipe.hidden)
    fit(model, head, source, recipe.policy_updates, rates=recipe.policy_rates, value_weight=0.0, report=report)
    save(model, tokenizer, head, folder)


# --- rollouts


async def grow(expander: Expander, node: Node, widths: tuple[int, ...]) -> None:
    """Samples `widths[0]` next steps of a node, `widths[1]` of each of those, and so on down to the answers."""
    if node.terminal or not widths:
        return
    try:
        await expander.expand(node, widths[0])
    except ContextTooLong:
        return
    await asyncio.gather(*(grow(expander, child, widths[1:]) for child in node.children))
    node.release()


def outcomes(node: Node, answer: str) -> list[float]:
    """+1 or -1 for every leaf below a node; the node's `value` becomes their mean."""
    if node.children:
        found = [outcome for child in node.children for outcome in outcomes(child, answer)]
    else:
        found = [1.0 if node.answered and node.final_answer == answer else -1.0]
    node.value = sum(found) / len(found)
    return found


def paths(root: Node) -> Iterator[list[Node]]:
    """Every path from the root to a leaf whose prompt a value can be read from."""
    if not root.children:
        yield [root]
    for child in root.children:
        for path in paths(child):
            yield [root, *path]


def path_record(path: list[Node]) -> dict[str, Any]:
    """The token ids of a path and the value at the end of the question and of every step that could be read."""
    token_ids: list[int] = []
    targets: list[tuple[int, float]] = []
    for node in path:
        token_ids += node.token_ids
        if not node.failed:
            targets.append((len(token_ids) - 1, node.value))
    return {"token_ids": token_ids, "targets": targets}


async def rollouts(
    recipe: Recipe, model: TransformersModel, problems: list[Problem], report: Callable[[str], None]
) -> list[Any]:
    """The records of all paths of a rollout tree per problem."""
    config = Config(
        mode="react", prompt_wrap="react_sft", result_unwrap="react_sft", step_delim="\n", stop=STOP,
        temperature=recipe.temperature, max_tokens=128, max_depth=len(recipe.widths), errors_threshold=3,
    )  # fmt: skip
    markup, gate, started = SftMarkup(), asyncio.Semaphore(48), time.monotonic()
    records: list[list[Any]] = []
    async with ForkInterpreter() as interpreter:

        async def attempt(index: int, problem: Problem) -> list[Any]:
            async with gate:
                expander = Expander(config, model, markup, interpreter, (recipe.seed, index))
                prompt = expander.prompt(problem.question)
                root = expander.root(problem.question, prompt)
                await grow(expander, root, recipe.widths)
            outcomes(root, str(problem.answer))
            return [path_record(path) for path in paths(root)]

        for done in asyncio.as_completed([attempt(i, p) for i, p in enumerate(problems)]):
            records.append(await done)
            if len(records) % 50 == 0:
                left = (time.monotonic() - started) / len(records) * (len(problems) - len(records))
                report(f"{len(records)}/{len(problems)} problems, {left:.0f} s left")
    return [record for own in records for record in own]


def collect(recipe: Recipe, policy: Path, folder: Path) -> None:
    report = reporter("rollouts")
    model = TransformersModel.load(policy, need_value=False)
    problems = generate(SEEDS["train"] + 1000 * recipe.seed, recipe.problems, "train")
    records = asyncio.run(rollouts(recipe, model, problems, report))
    records.sort(key=lambda record: record["token_ids"])  # the order in which they finish is no part of the recipe
    right = sum(record["targets"][-1][1] > 0 for record in records) / len(records)
    report(f"{len(records)} paths, {100 * right:.1f} % right")
    (folder / "paths.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


# --- value


def read_example(line: str) -> Example:
    """An example for the value head alone: the policy learns nothing from rollouts."""
    row = json.loads(line)
    targets = tuple((position, value) for position, value in row["targets"])
    return Example(tuple(row["token_ids"]), (False,) * len(row["token_ids"]), targets)


def interleave(first: Iterable[Batch], second: Iterator[Batch], share: float) -> Iterator[Batch]:
    """All of `first`, with so many of `second` between that they make up `share` of the whole."""
    due = 0.0
    for batch in first:
        yield batch
        due += share / (1 - share)
        while due >= 1:
            due -= 1
            yield next(second)


def train_value(recipe: Recipe, policy: Path, rollouts_folder: Path, folder: Path) -> None:
    torch.manual_seed(recipe.seed + 1)
    rng = random.Random(f"value {recipe.seed}")
    model = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    head = ValueHead(recipe.hidden, dropout=0.0)
    torch.nn.init.zeros_(head.summary.weight)
    torch.nn.init.zeros_(head.summary.bias)
    examples = [
        read_example(line) for line in (rollouts_folder / "paths.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rng.shuffle(examples)
    own = list(batches(examples, recipe.batch, rng))
    mixed = list(interleave(own, demonstration_batches(recipe, tokenizer, "replay"), recipe.demonstrated))
    weight, report = recipe.value_weight, reporter("value")
    fit(model, head, iter(mixed), len(mixed), rates=recipe.value_rates, value_weight=weight, report=report)
    save(model, tokenizer, head, folder)


# --- all of it


def stage(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of a stage; it appears under its name only when it is complete, and is then not made again."""
    path, unfinished = folder / name, folder / f"{name}.unfinished"
    if not path.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(path)
    return path


def train(recipe: Recipe, output: Path, runs: Path) -> None:
    """Runs the stages that are not done yet and copies the finished model to `output`."""
    work = runs / f"tiny-{recipe.key()}"
    policy = stage(work, "policy", lambda folder: train_policy(recipe, folder))
    collected = stage(work, "rollouts", lambda folder: collect(recipe, policy, folder))
    value = stage(work, "value", lambda folder: train_value(recipe, policy, collected, folder))
    shutil.copytree(value, output, dirs_exist_ok=True)
    reporter("done")(f"the model is in {output}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model from nothing.")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weights", help="the model's folder")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where finished stages are kept")
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    train(Recipe(seed=options.seed), options.output, options.runs)


if __name__ == "__main__":
    main()

"""The published schedule, as a rival: all questions in lock step, two calls of the model a round, whole prompts again.

After the published description: each round one prompt a leaf is collected and the model called for all samples; a
process pool is made for this round, every tree is pickled into it and back, and a worker runs the new steps, every
earlier snippet of the path again before each, without a sandbox. Then the model is called for the values.
"""

from __future__ import annotations

import concurrent.futures
import io
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from mcts.interpreter.observation import Capture, observe
from mcts.markup import Markup, printed_answer
from mcts.search.rules import backup, select
from mcts.trees.node import Node, solution_text, walk

Samples = list[tuple[str, float]]
"""Of each sample, its text up to the stop string and its log-probability."""

Work = tuple[Node, list[tuple[str, Samples]], Markup]
"""A tree, of some of its leaves the tag and the samples, and what reads them."""

VALUED = 8  # prompts whose values are computed in one pass: whole prompts, padded, take memory

Pool = Callable[[list[Work]], Iterable[Node]]


class BatchModel(Protocol):
    """A model that is called for all prompts at once."""

    def steps(self, prompts: Sequence[str], n: int) -> list[Samples]: ...

    def values(self, prompts: Sequence[str]) -> list[float]: ...


class Stock:
    """`transformers.generate` and the model's own forward pass, called for all prompts of a round."""

    def __init__(self, config: Any, stop: Sequence[str]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from models.engines.value_head import load_value_head

        folder = config.model_dir
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.head, self.config, self.stop = load_value_head(folder).eval(), config, list(stop)
        self.generated = self.computed = 0
        torch.manual_seed(0)

    def steps(self, prompts: Sequence[str], n: int) -> list[list[tuple[str, float]]]:
        import torch

        given = self.tokenizer(list(prompts), return_tensors="pt", padding=True)  # [B, T]
        with torch.inference_mode():
            made = self.network.generate(
                **given, do_sample=True, temperature=self.config.temperature, top_k=0, num_return_sequences=n,
                max_new_tokens=self.config.max_tokens, stop_strings=self.stop, tokenizer=self.tokenizer,
                output_logits=True, return_dict_in_generate=True, pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
            new = made.sequences[:, given.input_ids.shape[1] :]  # [B · n, T]
            logprobs = torch.stack(made.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]  # [B · n, T]
        real = new != self.tokenizer.pad_token_id
        self.generated += int(real.sum())
        self.computed += int(given.attention_mask.sum()) * n + int(real.sum())
        texts = [self._cut(text) for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]
        sums = (logprobs * real).sum(-1).tolist()
        pairs = list(zip(texts, sums, strict=True))
        return [pairs[i * n : (i + 1) * n] for i in range(len(prompts))]

    def _cut(self, text: str) -> str:
        return text[: min((at for stop in self.stop if (at := text.find(stop)) >= 0), default=len(text))]

    def values(self, prompts: Sequence[str]) -> list[float]:
        import torch

        found: list[float] = []
        for at in range(0, len(prompts), VALUED):
            given = self.tokenizer(list(prompts[at : at + VALUED]), return_tensors="pt", padding=True)
            with torch.inference_mode():
                hidden = self.network.base_model(**given).last_hidden_state[:, -1]  # [B, D]
                found += self.head(hidden).tolist()
            self.computed += int(given.attention_mask.sum())
        return found


def prompt_of(markup: Markup, question: str, node: Node) -> str:
    steps, prompt = solution_text(node, markup.step_delim), markup.prompt(question)
    assert isinstance(prompt, str)
    return prompt + (steps + markup.step_delim if steps else "")


def replay(path: Sequence[str], code: str) -> str:
    """What `code` prints after every earlier snippet of its path has run again, in a fresh namespace here."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    capture = Capture()
    standard_output, sys.stdout = sys.stdout, io.TextIOWrapper(io.BufferedWriter(capture))
    try:
        for earlier in path:
            observe(earlier, namespace, capture, "alphamath")
        return observe(code, namespace, capture, "alphamath")[0]
    finally:
        sys.stdout = standard_output


def grow(work: Work) -> Node:
    """A worker's part: the tree comes in, its leaves get their children, their code runs, the tree goes back."""
    root, expansions, markup = work
    nodes = {node.tag: node for node in walk(root)}
    for tag, samples in expansions:
        leaf = nodes[tag]
        for index, (text, logprob) in enumerate(samples):
            step = markup.read(text, solution_text(leaf, markup.step_delim))
            child = Node(f"{tag}.{index}", leaf, leaf.depth + 1, step.text, prior=math.exp(logprob))
            child.final_answer = step.final_answer
            if step.code:
                child.action_input = step.code
                observation = replay([earlier.action_input for earlier in leaf.path()], step.code)
                child.text = markup.observed(step, observation)
                child.final_answer = printed_answer(observation) if step.answers else ""
            child.terminal = bool(child.final_answer) or step.answers or not step.parsable
            leaf.children.append(child)
    return root


def pool() -> tuple[str, Pool]:
    """Pebble's pools, as published, or those of the standard library where it is not installed; their name first."""
    context, workers = multiprocessing.get_context("fork"), len(os.sched_getaffinity(0))
    try:
        import pebble
    except ImportError:
        print("pebble, whose pools the published system makes, is not installed (pip install pebble)")

        def standard(work: list[Work]) -> Iterable[Node]:
            with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as processes:
                return list(processes.map(grow, work))

        return "the standard library's process pools", standard

    def published(work: list[Work]) -> Iterable[Node]:
        with pebble.ProcessPool(workers, context=context) as processes:
            return list(processes.map(grow, work, timeout=1000).result())

    return "pebble's process pools", published


class LockStep:
    """Trees of all questions, grown together. rounds: how many all of them have had; seconds: what those took."""

    def __init__(self, model: BatchModel, markup: Markup, questions: Sequence[str], run: Pool) -> None:
        self.model, self.markup, self.run = model, markup, run
        self.questions, self.roots = list(questions), [Node() for _ in questions]
        self.rounds, self.seconds = 0, 0.0

    def expand(self, leaves: Sequence[Sequence[Node]], n: int) -> list[list[Node]]:
        """n new children of each leaf; per question its leaves and then, in the trees that came back, the same ones."""
        prompts = [
            prompt_of(self.markup, text, leaf)
            for text, own in zip(self.questions, leaves, strict=True)
            for leaf in own
        ]  # fmt: skip
        samples = iter(self.model.steps(prompts, n))
        work: list[Any] = [
            (root, [(leaf.tag, next(samples)) for leaf in own], self.markup)
            for root, own in zip(self.roots, leaves, strict=True)
        ]
        self.roots = list(self.run(work))
        found = [{node.tag: node for node in walk(root)} for root in self.roots]
        return [[nodes[leaf.tag] for leaf in own] for nodes, own in zip(found, leaves, strict=True)]

    def value(self, nodes: Sequence[Sequence[Node]]) -> None:
        """Asks for the values of nodes, per question, in one call."""
        pairs = [(text, node) for text, own in zip(self.questions, nodes, strict=True) for node in own]
        values = self.model.values([prompt_of(self.markup, text, node) for text, node in pairs]) if pairs else []
        for (_, node), value in zip(pairs, values, strict=True):
            node.value = value

    def monte_carlo(self, simulations: int, n: int, c_puct: float, seconds: float = math.inf) -> None:
        """MCTS, until every tree has had its simulations or is exhausted, or the time is up."""
        started = time.perf_counter()
        while self.rounds < simulations and time.perf_counter() - started < seconds:
            chosen = [select(root, c_puct) for root in self.roots]
            if not any(chosen):
                break
            leaves = self.expand([[leaf] if leaf is not None else [] for leaf in chosen], n)
            answers = [[child for leaf in own for child in leaf.children if child.terminal] for own in leaves]
            self.value([[*own, *ended] for own, ended in zip(leaves, answers, strict=True)])
            for own, ended in zip(leaves, answers, strict=True):
                for node in [*own, *ended]:
                    backup(node, node.value)
                for node in ended:
                    node.close()
            self.rounds += 1
        self.seconds = time.perf_counter() - started

    def step_beam(self, width: int, n: int, max_depth: int) -> None:
        """Step-level beam search (B1, B2): width · n samples of the root, then n of each of the `width` best."""
        started = time.perf_counter()
        beams, widths = [[root] for root in self.roots], [width] * len(self.roots)
        while any(beams) and self.rounds < max_depth:
            grown = self.expand(beams, n if self.rounds else width * n)
            children = [[child for node in own for child in node.children if not _failed(child)] for own in grown]
            self.value(children)
            for i, own in enumerate(children):
                kept = sorted(own, key=lambda child: child.value, reverse=True)[: widths[i]]
                beams[i] = [child for child in kept if not child.terminal]
                widths[i] -= len(kept) - len(beams[i])
            self.rounds += 1
        self.seconds = time.perf_counter() - started


def _failed(node: Node) -> bool:
    return node.terminal and not node.final_answer

"""What the rounds of the embedded model begin with: a model without knowledge, demonstrations, training questions.

    python -m models.tiny.prepare --seed 1 --output DIR

Writes DIR/model (random weights, tokenizer), DIR/demonstrations.jsonl (examples of the weak solver of
`demonstrations.py`), DIR/questions.jsonl (problems of the training split) and, where there are chains, DIR/short.jsonl
(demonstrations of short ones: what is copied stands near, so copying is learned sooner). The seed decides everything.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from models.tiny.demonstrations import Solution, demonstrate
from models.tiny.problems import SEEDS, Family, generate, stream, write
from models.tiny.tokenizer import build_tokenizer

HIDDEN, LAYERS, FEED_FORWARD, HEAD_DIM, WINDOW = 128, 4, 384, 32, 1024
INPUT, OUTPUT = 0.5, 0.1  # standard deviations of the embeddings at the start
SHORT = 9  # steps of a solution: six entries and what begins and ends it


def demonstrations(seed: int, purpose: str, family: Family) -> Iterator[Solution]:
    """Endless fresh demonstrations on training problems."""
    rng = random.Random(f"{purpose} {seed}")
    return (demonstrate(problem, rng) for problem in stream(rng.getrandbits(32), "train", family))


def demonstration_example(tokenizer: PreTrainedTokenizerFast, solution: Solution) -> dict[str, Any]:
    """Token ids as a search joins them: prompt, sampled step and environment are encoded one by one."""
    token_ids: list[int] = tokenizer.encode(solution.prompt, add_special_tokens=False)
    mask = [0] * len(token_ids)
    for written, observed in solution.steps:
        for text, by_policy in ((written, 1), (observed, 0)):
            piece = tokenizer.encode(text, add_special_tokens=False)
            token_ids += piece
            mask += [by_policy] * len(piece)
    return {"kind": "path", "token_ids": token_ids, "loss_mask": mask}


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        intermediate_size=FEED_FORWARD,
        num_attention_heads=HIDDEN // HEAD_DIM,
        num_key_value_heads=1,
        head_dim=HEAD_DIM,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # AdamW moves a row by its learning rate whenever it has a gradient. Rows of 0.02 drown in that: words that stand in
    # the same places are not told apart, neither as they come in nor as they go out.
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=INPUT)
    torch.nn.init.normal_(model.lm_head.weight, std=OUTPUT)
    return model


def prepare(seed: int, output: Path, shown: int, questions: int, family: Family) -> None:
    torch.manual_seed(seed)
    first = islice(demonstrations(seed, "tokenizer", family), 4000)
    tokenizer = build_tokenizer(s.prompt + "".join(a + b for a, b in s.steps) for s in first)
    tokenizer.save_pretrained(output / "model")
    new_model(tokenizer).save_pretrained(output / "model")
    shows = {"demonstrations": islice(demonstrations(seed, "policy", family), shown)}
    if family != "guess":
        short = (one for one in demonstrations(seed, "short", "chains") if len(one.steps) <= SHORT)
        shows["short"] = islice(short, shown // 8)
    for name, solutions in shows.items():
        with (output / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
            for solution in solutions:
                lines.write(json.dumps(demonstration_example(tokenizer, solution)) + "\n")
    write(generate(SEEDS["train"] + 1000 * seed, questions, "train", family), output / "questions.jsonl")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--demonstrations", type=int, default=40000)
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--family", choices=get_args(Family), default="all")
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    prepare(options.seed, options.output, options.demonstrations, options.questions, options.family)
    print(options.output)


if __name__ == "__main__":
    main()

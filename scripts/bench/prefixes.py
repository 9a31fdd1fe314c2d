"""Questions with one few-shot prompt: prompt tokens computed and peak memory at 8, 32 and 64 questions in flight.

    python -m scripts.bench.prefixes [--json FILE]

A random model with the widths of SmolLM2-135M (grouped heads, tied embeddings) and 3 of its 30 layers: 1,300 tokens
that all questions begin with, 60 of their own, five samples each, then one child of each with five more. Every setting
runs in a process of its own; memory is what it has at its peak beyond the loaded model, beside what the key/value
entries of a copy for each prompt take.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
from typing import Any

from scripts.bench.common import Claim, at_most, beside, main

SHARED, OWN, STEP, SAMPLES = 1300, 60, 24, 5
LAYERS, HEADS, DIM = 3, 3, 64
ENTRY = 2 * LAYERS * HEADS * DIM * 4  # bytes of a position


def model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from models.engines.transformers.engine import TransformersModel
    from models.engines.transformers.network import ATTENTION, register_attention

    register_attention()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=9,
        num_key_value_heads=HEADS, head_dim=DIM, max_position_embeddings=8192, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, attn_implementation=ATTENTION,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    tokenizer = AutoTokenizer.from_pretrained("models/tiny/weights")
    tokenizer.eos_token = None
    return TransformersModel(network, tokenizer, max_rows=5 * 64)


def worker(count: int) -> dict[str, float]:
    """What `count` questions at once take."""
    from mcts.model import Context, Sampling

    engine = model()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = random.Random(0)
    shared = tuple(rng.randrange(700) for _ in range(SHARED))

    async def one(index: int) -> None:
        own = random.Random(index)
        root = Context(None, shared + tuple(own.randrange(700) for _ in range(OWN)))
        params = Sampling(1.0, max_tokens=STEP, key=(index,))
        first = await engine.sample(root, SAMPLES, params)
        child = Context(first.samples[0].context, (5, 6, 7))
        await engine.sample(child, SAMPLES, params)

    async def everything() -> None:
        await asyncio.gather(*(one(index) for index in range(count)))

    asyncio.run(everything())
    totals = engine.totals
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"prefill": totals.prompt_tokens - totals.tokens_reused, "mib": (peak - before) / 1024}


def measure() -> list[Claim]:
    claims = []
    for count in (8, 32, 64):
        command = [sys.executable, "-m", "scripts.bench.prefixes", "--worker", str(count)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        distinct = SHARED + count * (OWN + 3)
        name = f"{count} questions in flight"
        claims.append(at_most(f"{name}: prompt tokens computed over distinct", found["prefill"], distinct, 1.02))
        copies = count * (2 * (SHARED + OWN) + STEP + 3) * ENTRY / 2**20
        claims.append(beside(f"{name}: peak memory beside a copy of each prompt", found["mib"], copies, "MiB"))
    return claims


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(worker(int(sys.argv[2]))))
    else:
        main(__doc__, measure)

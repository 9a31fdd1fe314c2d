"""What `arbor serve` counts and names, without a server: its places, and the methods behind the names of models."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from arbor.serving.asked import method_keys, most_samples
from arbor.serving.limits import Gate, Limits, Refused
from models.engines.config import load_config

CONFIG = Path(__file__).resolve().parents[2] / "configs/tiny/sbs_3_5.yaml"


async def test_a_gate_loses_no_place_whoever_leaves() -> None:
    limits = Limits(in_flight=3, queue=8, wait_seconds=0.02)
    gate, noise, most, passed = Gate(limits), random.Random(0), 0, 0

    async def visit() -> None:
        nonlocal most, passed
        async with gate.place():
            most = max(most, gate.running)
            await asyncio.sleep(noise.random() / 100)
            passed += 1

    tasks = []
    for _ in range(600):
        tasks.append(asyncio.create_task(visit()))
        await asyncio.sleep(noise.random() / 400)
        if noise.random() < 0.4:
            noise.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.running, gate.waiting) == (0, 0) and most == 3 and passed > 100
    assert all(one is None or isinstance(one, Refused | asyncio.CancelledError) for one in results)
    gate.close()
    with pytest.raises(Refused):
        await visit()


def test_names_stand_for_methods() -> None:
    config = load_config(CONFIG)
    for name, samples in (("arbor-greedy", 1), ("arbor-sbs-3-5", 5), ("arbor-mcts-9", 5), ("arbor-mcts-9-2", 2)):
        keys = method_keys(name)
        assert keys is not None and keys.get("n_generate_sample", 1) == samples
    assert most_samples(config) == (config.max_depth + 1) * 15
    for name in (
        "arbor-",
        "arbor-sbs",
        "arbor-sbs-3-5-7",
        "arbor-greedy-1",
        "arbor-maj-٣",
        "arbor-maj-5\n",
        "xarbor-maj-5",
    ):
        assert method_keys(name) is None

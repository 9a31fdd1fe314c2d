"""Runs of the trainer that several files of tests make."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file

from models.training.settings import TrainSettings
from tests.conftest import save_model_folder, write_jsonl


def example_lines(n: int, seed: int = 0) -> list[dict]:
    """Paths of a toy language (counting up), right and wrong, and a preference pair for each question."""
    rng, lines = random.Random(seed), []
    for question in range(n):
        first = rng.randrange(100)
        prompt = [first + i for i in range(4)]
        for correct in (True, False):
            steps = [first + 4 + i if correct else rng.randrange(250) for i in range(rng.randint(4, 9))]
            ids = prompt + steps
            targets = [[len(ids) // 2, 0.5 if correct else -0.5], [len(ids) - 1, 1.0 if correct else -1.0]]
            mask = [0] * 4 + [1] * len(steps)
            group = f"q{question}"
            lines.append({"kind": "path", "group": group, "correct": correct, "token_ids": ids, "loss_mask": mask,
                          "targets": targets})  # fmt: skip
        sides = [{"token_ids": ids, "loss_mask": [1, 1], "q_value": q} for ids, q in (([1, 2], 0.8), ([9, 7], -0.6))]
        lines.append(
            {"kind": "pair", "group": f"q{question}", "prefix": prompt, "chosen": sides[0], "rejected": sides[1]}
        )
    return lines


def make_folder(path: Path) -> Path:
    """A model and examples in the folder."""
    save_model_folder(path / "base")
    write_jsonl(path / "examples.jsonl", example_lines(12))
    write_jsonl(path / "held_out.jsonl", example_lines(4, seed=1))
    return path


def settings(folder: Path, output: Path, **keys: object) -> TrainSettings:
    base = {
        "model_dir": str(folder / "base"), "examples": [str(folder / "examples.jsonl")], "output": str(output),
        "batch_size": 6, "updates": 12, "learning_rate": 2e-3, "value_dropout": 0.0, "log_every": 1, "eval_every": 6,
        "device": "cpu", "tensorboard": False, "value_weight": 1.0,
    }  # fmt: skip
    return TrainSettings.model_validate(base | keys)


def metrics(output: Path, kind: str = "train") -> list[dict]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("tokens_per_second", None)
    return [row for row in rows if row.pop("kind") == kind]


def weights(output: Path) -> dict[str, torch.Tensor]:
    files = sorted((output / "model").glob("*.safetensors"))
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


def same_weights(first: Path, second: Path, atol: float) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], rtol=0, atol=atol) for k in one)

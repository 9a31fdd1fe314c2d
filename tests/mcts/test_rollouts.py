"""Values from rollouts, with the embedded model's policy and real code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.grading.grader import Verdict, grade_async
from mcts.interpreter import ForkInterpreter
from mcts.markup import SftMarkup
from mcts.model import Context, Expansion, Sample, Sampling
from mcts.question import Question
from mcts.search.driver import solve_all
from mcts.search.rollouts import RolloutSolver
from models.engines.config import load_config
from models.engines.transformers.engine import TransformersModel

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = [f"Find the positive integer x with x^2 + {i}x = {x * x + i * x}." for i, x in ((3, 7), (5, 12))]


async def grade(answers: Any, prediction: str) -> bool | None:
    return (await grade_async(list(answers), prediction)).verdict is Verdict.EQUAL


async def solve(model: Any, mode: str, in_flight: int, **changes: Any) -> list[dict[str, Any]]:
    config = load_config(ROOT / "configs" / "tiny" / "mcts.yaml").model_copy(
        update={"mode": mode, "value_from": "majority", "value_rollouts": 2, "iterations": 3, **changes}
    )
    async with ForkInterpreter(timeout_seconds=60) as interpreter:
        solver = RolloutSolver(config, model, SftMarkup(), interpreter, grade, seed=3)
        questions = [Question(index, {"question": text}, "") for index, text in enumerate(QUESTIONS)]
        found = {question.index: record async for question, record in solve_all(solver, questions, in_flight)}
    return [found[index] for index in sorted(found)]


@pytest.fixture(scope="module")
def policy() -> TransformersModel:
    return TransformersModel.load(ROOT / "models" / "tiny" / "weights", need_value=False)


@pytest.mark.parametrize(("mode", "changes"), [("mcts", {}), ("mcts", {"update_leaf_value": False}), ("sbs", {})])
async def test_a_model_without_a_value_head_searches_and_the_same_seed_gives_the_same_tree(
    policy: TransformersModel, mode: str, changes: dict[str, Any]
) -> None:
    alone, crowd = [await solve(policy, mode, in_flight, **changes) for in_flight in (1, 2)]
    assert [record["react"] for record in alone] == [record["react"] for record in crowd]
    values = [
        node["value"]
        for record in alone
        for tag, node in record["react"].items()
        if tag != "solutions" and node["value"] != -100
    ]
    assert len(values) > 4 and len(set(values)) > 1
    assert set(values) <= {-1.0, 0.0, 1.0}
    if mode == "sbs":  # three simulations of MCTS need not reach an answer
        assert any(record["prediction"] for record in alone)


class Answers:
    """A policy of one step that says the numbers of a list, by index and key."""

    def __init__(self, numbers: list[str]) -> None:
        self.numbers = numbers

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        rollout = params.key[4] if len(params.key) > 4 and params.key[3] == "rollout" else 0
        texts = [f"<step>\n<p>\nFinal Answer: {self.numbers[int(rollout) + i]}\n</p>\n" for i in range(n)]
        return Expansion(None, tuple(Sample(self.encode(text), text, -1.0, "stop") for text in texts))


async def test_answers_are_worth_their_agreement_with_the_majority() -> None:
    records = await solve(Answers(["4", "5", "5", "6", "7"]), "mcts", 1, value_rollouts=3)
    for record in records:
        values = {node["final_answer"]: node["value"] for tag, node in record["react"].items() if tag != "0"}
        assert values == {"4": -1.0, "5": 1.0, "6": -1.0, "7": -1.0}
        assert record["prediction"]["final_answer"] == "5"
        assert record["meta"]["samples"] == 5 + 3

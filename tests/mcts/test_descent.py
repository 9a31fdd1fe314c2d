"""MCTS on long solutions: a budget that found no answer ends in a descent to one.

The model is a chain of steps: each is right with probability 0.85, a wrong one is never repaired, and the value head
ranks a right sibling above a wrong one with probability 0.9.
"""

from __future__ import annotations

import math
import random

import pytest

from mcts.interpreter import ForkInterpreter
from mcts.trees.record import from_record
from tests.mcts.conftest import RandomModel, ScriptedModel, ask, code_step, final_step, make_solver

QUESTIONS = 10
SEPARATION = math.sqrt(2) * 1.2816  # of two normal distributions, for an AUC of 0.9


def chain(depth: int, number: int) -> ScriptedModel:
    """Solutions of `depth` steps of code, then the answer: 42 after right steps only."""

    def say(prompt: str, index: int) -> str:
        wrong = "# slip" in prompt
        steps = prompt.count("</step>")
        if steps == depth:
            return final_step("41" if wrong else "42")
        drawn = random.Random(f"{number} {index} {prompt}").random()
        return code_step(f"print({steps})  # {'slip' if drawn > 0.85 else 'good'} {index}")

    def value(prompt: str) -> float:
        noise = random.Random(f"value {number} {prompt}").gauss()
        return math.tanh(noise / 2 + (-SEPARATION / 4 if "# slip" in prompt else SEPARATION / 4))

    return ScriptedModel(say, value)


async def right_of(interpreter: ForkInterpreter, depth: int, **keys: object) -> tuple[int, int]:
    """(right, unanswered) of the questions."""
    right = unanswered = 0
    for number in range(QUESTIONS):
        solver = make_solver(
            chain(depth, number), interpreter, need_value_func=True, n_generate_sample=5, max_depth=depth + 2, **keys
        )
        prediction = (await solver.solve(ask(answer="42")))["prediction"]
        unanswered += prediction is None
        right += prediction is not None and prediction["correct"] is True
    return right, unanswered


@pytest.mark.parametrize("constants", [{"c_puct": 1.25}, {"c_puct": 0.5, "update_leaf_value": True}])
async def test_a_budget_that_is_too_small_for_the_depth_still_ends_in_answers(
    interpreter: ForkInterpreter, constants: dict[str, object]
) -> None:
    keys = {"mode": "mcts", "iterations": 40, "step_beam_width": 3, **constants}
    without, unanswered = await right_of(interpreter, 8, descend=False, **keys)
    assert unanswered > QUESTIONS // 2  # the case is one: most budgets end above the answers
    right, unanswered = await right_of(interpreter, 8, **keys)
    assert unanswered == 0 and right >= max(0.7 * QUESTIONS, without + 5)


async def test_a_question_answered_within_its_budget_gets_the_same_tree_with_and_without_the_descent(
    interpreter: ForkInterpreter,
) -> None:
    keys = {"mode": "mcts", "iterations": 30, "n_generate_sample": 3, "need_value_func": True, "max_depth": 3}
    one, other = [
        await make_solver(RandomModel(4), interpreter, descend=descend, **keys).solve(ask(answer="7"))
        for descend in (True, False)
    ]
    assert one["prediction"] is not None and one["meta"]["descent"] == 0
    assert one["react"] == other["react"]


async def test_the_statistics_of_a_descent_add_up_and_a_saved_tree_gives_the_same_answer(
    interpreter: ForkInterpreter,
) -> None:
    solver = make_solver(
        chain(8, 3), interpreter, mode="mcts", iterations=10, need_value_func=True, n_generate_sample=5, max_depth=10,
        leaves_in_flight=4,
    )  # fmt: skip
    record = await solver.solve(ask(answer="42"))
    assert record["meta"]["simulations"] == 10 and record["meta"]["descent"] > 0
    for node in from_record(record["react"]).walk():
        own = node.visit_count - sum(child.visit_count for child in node.children)
        assert own >= 0
    assert record["prediction"]["final_answer"] in ("41", "42")


async def test_a_tree_in_which_every_step_fails_says_why_it_has_no_answer(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: "no markup at all")
    solver = make_solver(model, interpreter, mode="mcts", iterations=6, need_value_func=True, n_generate_sample=2)
    record = await solver.solve(ask(answer="42"))
    assert record["prediction"] is None
    assert record["meta"]["no_answer"] == "unparsable" and record["meta"]["failures"] == {"unparsable": 2}


@pytest.mark.parametrize("mode", ["react", "sbs", "mcts"])
async def test_a_prompt_that_does_not_fit_is_the_reason(interpreter: ForkInterpreter, mode: str) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("42"), window=20)
    solver = make_solver(model, interpreter, mode=mode, iterations=6, need_value_func=True, n_generate_sample=2)
    record = await solver.solve(ask(answer="42"))
    assert record["prediction"] is None and record["meta"]["no_answer"] == "prompt too long"
    assert record["react"]["0"]["reason"] == "prompt too long"

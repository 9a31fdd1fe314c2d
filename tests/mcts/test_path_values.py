"""What a path is worth, where the value head sees an error only in the step that makes it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from eval.report.rows import read_rows
from mcts.config import Config
from mcts.interpreter import ForkInterpreter
from mcts.model import Context
from mcts.search.early import Early, _Bounds
from mcts.search.offline import offline_inference
from mcts.search.rules import PATH_VALUES, path_value
from mcts.trees.node import NOT_EVALUATED, TOO_LONG, Node
from mcts.trees.record import from_record
from tests.conftest import write_jsonl
from tests.mcts.conftest import ScriptedModel, ask, code_step, final_step, make_solver

DEPTH, QUESTIONS = 6, 12


def path(*values: float) -> Node:
    """The last of a chain of steps with these values, below a root."""
    node = Node(value=0.3)
    for depth, value in enumerate(values, start=1):
        child = Node(tag=f"{node.tag}.0", parent=node, depth=depth, value=value)
        node.children.append(child)
        node = child
    return node


@pytest.mark.parametrize(("rule", "worth"), [("last", 0.6), ("min", -0.2), ("mean", 0.3), ("product", -0.52)])
def test_each_rule_reads_the_values_of_all_steps_but_not_the_root_s(rule: str, worth: float) -> None:
    assert path_value(path(0.5, -0.2, 0.6), rule) == pytest.approx(worth)


@pytest.mark.parametrize("rule", PATH_VALUES)
def test_what_has_no_value_does_not_count(rule: str) -> None:
    assert path_value(path(0.5, NOT_EVALUATED, 0.5), rule) == path_value(path(0.5, 0.5), rule)
    assert path_value(path(0.5, NOT_EVALUATED), rule) == NOT_EVALUATED
    assert path_value(Node(value=0.3), rule) == 0.3
    assert -1 <= path_value(path(0.9, -1.0, 0.7), rule) <= 1


def forgetful(number: int) -> ScriptedModel:
    """Solutions of DEPTH steps; a wrong one (three of ten) is seen by the value head only as long as it is the last;
    right ones are all the same step."""

    def say(prompt: str, index: int) -> str:
        if prompt.count("</step>") == DEPTH:
            return final_step("41" if "# slip" in prompt else "42")
        drawn = random.Random(f"{number} {index} {prompt}").random()
        return code_step(f"print({index})  # slip" if drawn < 0.3 else "print(0)  # good")

    def value(prompt: str) -> float:
        slipped = "# slip" in prompt.rpartition("<step>")[2]
        return (-0.9 if slipped else 0.6) + random.Random(f"value {number} {prompt}").uniform(-0.1, 0.1)

    return ScriptedModel(say, value)


async def right_of(interpreter: ForkInterpreter, **keys: object) -> int:
    right = 0
    for number in range(QUESTIONS):
        solver = make_solver(
            forgetful(number), interpreter, need_value_func=True, n_generate_sample=5, step_beam_width=3,
            remove_duplicate=True, max_depth=DEPTH + 2, **keys,
        )  # fmt: skip
        prediction = (await solver.solve(ask(answer="42")))["prediction"]
        right += prediction is not None and prediction["correct"] is True
    return right


@pytest.mark.parametrize(
    "keys",
    [
        {"mode": "sbs"},
        {"mode": "mcts", "iterations": 30, "update_leaf_value": True, "c_puct": 0.5},
        {"mode": "mcts", "iterations": 12, "mcts_infer_strategy": "q_value", "c_puct": 0.5},
    ],
)
async def test_all_values_of_a_path_save_a_search_whose_head_forgets(
    interpreter: ForkInterpreter, keys: dict[str, object]
) -> None:
    forgetting = await right_of(interpreter, **keys)
    for rule in ("min", "mean", "product"):
        assert await right_of(interpreter, path_value=rule, **keys) >= forgetting + 5


def test_a_decision_by_value_reads_the_path() -> None:
    record = {
        tag: {"text": tag, "value": value, "q_value": 0, "visit_count": 1, "prior": 0.5, "final_answer": answer}
        for tag, value, answer in [
            ("0", 0, ""), ("0.0", -0.9, ""), ("0.1", 0.5, ""), ("0.0.0", 0.8, "forgotten"), ("0.1.0", 0.6, "good")
        ]
    }  # fmt: skip
    root = from_record(record)
    found = {
        rule: offline_inference(root, strategy="value", beam_width=2, path_value=rule)[0].final_answer
        for rule in PATH_VALUES
    }
    assert found == {"last": "forgotten", "min": "good", "mean": "good", "product": "good"}


def test_early_decisions_bound_a_node_by_the_same_rule() -> None:
    config = Config(mode="mcts", need_value_func=True, mcts_infer_strategy="value", path_value="mean")
    assert _Bounds(config, 5).of(path(-0.9, 0.8)) == pytest.approx((-0.05, -0.05))


async def test_a_sampled_solution_has_the_values_that_a_beam_of_one_sample_has(interpreter: ForkInterpreter) -> None:
    keys = {"need_value_func": True, "max_depth": DEPTH + 2, "seed": 3}
    chain = await make_solver(forgetful(5), interpreter, mode="react", **keys).solve(ask(answer="42"))
    beam = await make_solver(forgetful(5), interpreter, mode="sbs", n_generate_sample=1, **keys).solve(ask(answer="42"))
    values = [[node.value for node in from_record(one["react"]).walk()] for one in (chain, beam)]
    assert values[0][1:] == values[1][1:] and NOT_EVALUATED not in values[0]
    assert chain["meta"]["evaluations"] == 1 < beam["meta"]["evaluations"]
    unjudged = await make_solver(forgetful(5), interpreter, mode="react").solve(ask(answer="42"))
    assert {node.value for node in from_record(unjudged["react"]).walk()} == {NOT_EVALUATED}


async def test_an_answer_that_time_or_the_window_leaves_without_a_value_counts(interpreter: ForkInterpreter) -> None:
    class Slow(ScriptedModel):
        async def evaluate(self, context: Context) -> float:
            await asyncio.sleep(60)
            return 0.0

    keys = {"mode": "react", "need_value_func": True}
    late = await make_solver(Slow(lambda *_: final_step("42")), interpreter, max_total_time=0.5, **keys).solve(ask())
    assert late["prediction"]["final_answer"] == "42" and late["meta"]["timed_out"]
    model = ScriptedModel(lambda *_: final_step("42"))
    await make_solver(model, interpreter, mode="react").solve(ask())
    model.window = len(model.prompts[0])  # the question fits, its answer does not
    for mode in ("react", "sbs"):
        full = await make_solver(model, interpreter, mode=mode, need_value_func=True).solve(ask())
        assert full["prediction"]["final_answer"] == "42" and "failures" not in full["meta"]
        assert from_record(full["react"]).children[0].value == NOT_EVALUATED


async def test_a_vote_weighs_paths(interpreter: ForkInterpreter) -> None:
    """Two answers "a" that the head has forgotten the error of, one "b" that it liked all along."""

    def say(prompt: str, index: int) -> str:
        if "</step>" in prompt:
            return final_step("b" if "good" in prompt else "a")
        return code_step("print(1)  # good" if index == 2 else f"print({index})  # slip")

    def value(prompt: str) -> float:
        return (0.9 if "good" in prompt else -0.95) if prompt.count("</step>") == 1 else 0.5

    picked = {}
    for rule in ("last", "min"):
        keys = {"mode": "sbs", "n_generate_sample": 3, "step_beam_width": 3, "remove_duplicate": True}
        keys |= {"need_value_func": True, "vote": "value_weighted", "path_value": rule}
        solver = make_solver(ScriptedModel(say, value), interpreter, **keys)
        picked[rule] = (await solver.solve(ask()))["prediction"]["final_answer"]
    assert picked == {"last": "a", "min": "b"}
    early = Early(Config(mode="mcts", need_value_func=True, path_value="min", stop_agreement=0.8, stop_answers=3))
    for text, first in (("a", -0.95), ("a", -0.95), ("b", 0.9)):
        leaf = path(first, 0.5)
        leaf.final_answer, leaf.terminal = text, True
        assert leaf.parent is not None
        early.observe(leaf.parent)
    assert early.weights == pytest.approx({"a": 0.1, "b": 1.5})


async def test_a_step_that_no_longer_fits_backs_up_its_own_reward(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: code_step(f"print({index})"), lambda prompt: 0.9)
    keys = {"mode": "mcts", "need_value_func": True, "update_leaf_value": True, "n_generate_sample": 2}
    await make_solver(model, interpreter, iterations=3, **keys).solve(ask())
    model.window = len(model.prompts[1])  # a step fits, a second one does not
    record = await make_solver(model, interpreter, iterations=6, path_value="mean", **keys).solve(ask())
    failed = [node for node in from_record(record["react"]).walk() if node.reason == TOO_LONG]
    assert failed and all(node.value == node.q_value == -1.0 for node in failed)


async def test_where_nothing_has_a_value_depth_costs_nothing(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: code_step(f"print({index})"), lambda prompt: None)  # without a head
    keys = {
        "mode": "mcts",
        "is_sampling": True,
        "iterations": 8,
        "path_value": "product",
        "max_depth": 50,
        "descend": False,
    }
    record = await make_solver(model, interpreter, **keys).solve(ask(answer="42"))
    nodes = list(from_record(record["react"]).walk())
    assert max(node.depth for node in nodes) > 1 and {node.q_value for node in nodes} == {0.0}


async def test_a_report_ranks_the_answers_as_their_search_did(interpreter: ForkInterpreter, tmp_path: Path) -> None:
    keys = {"mode": "sbs", "n_generate_sample": 5, "step_beam_width": 3, "need_value_func": True}
    keys |= {"remove_duplicate": True, "max_depth": DEPTH + 2}
    records = []
    for number in range(QUESTIONS):
        solver = make_solver(forgetful(number), interpreter, path_value="mean", **keys)
        record = await solver.solve(ask(answer="42"))
        records.append(said_by(record, "mean"))
    rows = read_rows(write_jsonl(tmp_path / "t.jsonl", records), "default")
    assert [row.samples[0].answer for row in rows] == [one["prediction"]["final_answer"] for one in records]
    told = [said_by(record, "last") for record in records]
    rows = read_rows(write_jsonl(tmp_path / "l.jsonl", told), "default")
    assert [row.samples[0].answer for row in rows] != [one["prediction"]["final_answer"] for one in records]


def said_by(record: dict[str, Any], rule: str) -> dict[str, Any]:
    return {**record, "meta": {**record["meta"], "config": {"path_value": rule}}}

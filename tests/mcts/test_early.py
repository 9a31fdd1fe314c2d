"""Early decisions: they never change a pick that could be proved, and what they free goes to open questions."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts.config import Config
from mcts.interpreter import Execution, State
from mcts.search.budget import SharedBudget
from mcts.search.driver import run_file
from mcts.search.early import Early, decided
from mcts.trees.file import TreeWriter
from mcts.trees.node import Node
from tests.mcts.conftest import RandomModel, ScriptedModel, ask, code_step, final_step, make_solver, without_seconds

SHAPE = {"mode": "mcts", "n_generate_sample": 3, "iterations": 24, "need_value_func": True, "max_depth": 4}


class Quick:
    """The search is under test here, not the code."""

    async def run(self, state: State | None, code: str) -> Execution:
        printed = re.search(r"print\((.*)\)", code)
        return Execution(printed[1] if printed else "ZeroDivisionError: division by zero", None, 0.0, False)


def solve(model: ScriptedModel, **keys: object) -> dict:
    return asyncio.run(make_solver(model, Quick(), **SHAPE | keys).solve(ask(answer="7")))  # type: ignore[arg-type]


def config(**keys: object) -> Config:
    return Config.model_validate(SHAPE | keys)


def rivals(
    visits: tuple[int, int], values: tuple[float, float], *, closed: tuple[bool, bool]
) -> tuple[Node, set[Node]]:
    """A root with two answers: (visits, Q, closed) of each."""
    root = Node(visit_count=sum(visits))
    for i in (0, 1):
        child = Node(f"0.{i}", root, 1, final_answer=str(i), terminal=True, visit_count=visits[i], closed=closed[i])
        child.value_sum = values[i] * visits[i]
        root.children.append(child)
    return root, {root, *root.children}


def test_visit_counts_are_decided_when_the_lead_exceeds_all_backups_left() -> None:
    """Three samples: a simulation backs up at most four values; so a lead of 8 stands against two simulations, where
    the tie goes to the first child, and not against three."""
    by_visits = config(mcts_infer_strategy="visit_count")
    root, fruitful = rivals((10, 2), (0, 0), closed=(False, False))
    assert decided(root, fruitful, by_visits, 2)
    assert not decided(root, fruitful, by_visits, 3)
    root, fruitful = rivals((2, 10), (0, 0), closed=(False, False))
    assert not decided(root, fruitful, by_visits, 2)
    assert decided(root, fruitful, by_visits, 1)


def test_q_values_are_decided_by_the_worst_and_the_best_that_can_come() -> None:
    """Four values of 1 lift a Q of 0.2 over 4 visits to 0.6; four of -1 press 0.9 over 16 to 0.52."""
    root, fruitful = rivals((16, 4), (0.9, 0.2), closed=(True, False))
    assert decided(root, fruitful, config(), 1)
    assert not decided(root, fruitful, config(), 9)
    root, fruitful = rivals((16, 4), (0.9, 0.2), closed=(False, False))
    assert not decided(root, fruitful, config(), 1)
    root, fruitful = rivals((16, 4), (0.9, 0.2), closed=(True, True))
    assert decided(root, fruitful, config(), 1000)


def test_a_branch_whose_first_answer_may_yet_come_is_a_rival() -> None:
    root, fruitful = rivals((4, 4), (0.9, 0.8), closed=(True, False))
    assert not decided(root, fruitful - {root.children[1]}, config(), 1)
    root.children[1].closed = True
    assert decided(root, fruitful - {root.children[1]}, config(), 1)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    strategy=st.sampled_from(["q_value", "value", "visit_count", "puct"]),
    beam=st.integers(1, 3),
    vote=st.sampled_from(["none", "majority", "value_weighted"]),
    leaf_values=st.booleans(),
    leaves=st.sampled_from([1, 3]),
    training=st.booleans(),
)
def test_a_provable_stop_never_changes_the_prediction(
    seed: int, strategy: str, beam: int, vote: str, leaf_values: bool, leaves: int, training: bool
) -> None:
    keys = {
        "mcts_infer_strategy": strategy, "step_beam_width": beam, "vote": vote, "update_leaf_value": leaf_values,
        "leaves_in_flight": leaves, "is_sampling": training,
    }  # fmt: skip
    full = solve(RandomModel(seed), **keys)
    early = solve(RandomModel(seed), stop_when_decided=True, **keys)
    assert early["prediction"] == full["prediction"]
    assert early["meta"]["simulations"] <= full["meta"]["simulations"]
    assert ("stopped" in early["meta"]) or early["react"] == full["react"]


@pytest.mark.parametrize("strategy", ["q_value", "value", "visit_count", "puct"])
def test_provable_stops_happen(strategy: str) -> None:
    saved = [
        "stopped" in solve(RandomModel(seed), stop_when_decided=True, mcts_infer_strategy=strategy)["meta"]
        for seed in range(60)
    ]
    assert any(saved) and not all(saved)


def test_agreement_counts_votes_by_value_and_needs_enough_answers() -> None:
    early = Early(config(stop_agreement=0.75, stop_answers=4))
    root = Node(visit_count=1)
    answers = [("7", 0.5, 1), ("8", -0.5, 0), ("7 ", 0.0, 0)]  # votes: 2 · 1.5, 0.5, 1.0
    for i, (text, value, duplicates) in enumerate(answers):
        child = Node(f"0.{i}", root, 1, final_answer=text, terminal=True, value=value, duplicates=duplicates)
        early.observe(Node(children=[child]))
        assert early.reason(root, 5) == (None if i < 2 else "agreed")
    assert early.weights == {"7": pytest.approx(4.0), "8": pytest.approx(0.5)}


def test_agreement_stops_a_search_and_says_so() -> None:
    model = ScriptedModel(lambda prompt, index: final_step("7") if index == 0 else code_step(f"print({index})"))
    record = solve(model, stop_agreement=0.9, stop_answers=3)
    assert record["meta"]["stopped"] == ["agreed"] and record["meta"]["simulations"] == 3
    assert record["prediction"]["final_answer"] == "7"


def test_a_hopeless_branch_gets_nothing_more() -> None:
    """Every value below the first child is bad."""

    def say(prompt: str, index: int) -> str:
        return code_step(f"print({index})")

    model = ScriptedModel(say, lambda prompt: -0.9 if prompt.partition("<output>\n")[2].startswith("0") else 0.0)
    visits = []
    for keys in ({}, {"hopeless_value": -0.5, "hopeless_visits": 2}):
        tree = solve(model, first_play_urgency=0.5, max_depth=9, descend=False, **keys)["react"]
        visits.append(tree["0.0"]["visit_count"])
        assert tree["0"]["visit_count"] == 24
    assert visits[1] == 2 < visits[0]


async def test_shares_by_hand() -> None:
    shared = SharedBudget(4)
    shared.settle(3, 5, False)  # finished in a run before this one
    for index in (0, 1, 2):
        shared.enter(index)
    shared.settle(2, 0, True)
    shared.settle(0, 0, True)
    late = asyncio.create_task(shared.share(0))
    await asyncio.sleep(0)
    assert not late.done()  # question 1 is still searched
    shared.settle(1, 6, False)
    await asyncio.sleep(0)
    assert not late.done()  # the block may get more questions
    shared.enter(4)
    assert [await late, await shared.share(2)] == [6, 5]


async def run_questions(path: Path, seed: int, in_flight: int, count: int = 10) -> list[dict]:
    keys = {"stop_agreement": 0.6, "stop_answers": 2, "budget_block": 4, "batch_size": in_flight, "iterations": 8}
    solver = make_solver(RandomModel(seed), Quick(), **SHAPE | keys)  # type: ignore[arg-type]
    solver.meta = {"fingerprint": "same"}
    writer = TreeWriter(path, "same")
    writer.open(resume=True)
    questions = [ask(f"Question {index}?", index, answer="7") for index in range(count)]
    await asyncio.wait_for(run_file(solver, questions, writer, in_flight, lambda record: None), 60)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["meta"] = without_seconds(row["meta"])
    return rows


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_freed_simulations_go_to_open_questions_the_same_way_in_every_run(tmp_path: Path, seed: int) -> None:
    rows = await run_questions(tmp_path / "whole", seed, 4)
    assert rows == await run_questions(tmp_path / "wide", seed, 64)
    for block in (rows[:4], rows[4:8], rows[8:]):
        assert sum(row["meta"]["simulations"] for row in block) <= 8 * len(block)
    assert any(row["meta"]["simulations"] > 8 for row in rows)
    for kept in range(1, 10, 2):  # a run that was killed after so many questions, in the order they were finished
        lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
        (tmp_path / f"cut{kept}").write_text("".join(lines[::-1][:kept]))
        assert await run_questions(tmp_path / f"cut{kept}", seed, 5) == rows

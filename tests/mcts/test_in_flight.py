"""Several simulations of one tree at a time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from mcts.interpreter import ForkInterpreter
from mcts.search.rules import note_in_flight, puct, select
from mcts.trees.node import Node
from tests.mcts.conftest import RandomModel, ScriptedModel, ask, code_step, final_step, make_solver, without_seconds

RULES = ("virtual_loss", "unobserved")


def fork() -> Node:
    """A root visited ten times, a child visited four times with Q 0.5, one that was never visited."""
    root = Node(visit_count=10)
    root.children = [
        Node("0.0", root, 1, prior=0.6, visit_count=4, value_sum=2.0),
        Node("0.1", root, 1, prior=0.3),
    ]
    return root


def test_the_rules_by_hand_with_backups_that_are_due() -> None:
    root = fork()
    seen, fresh = root.children
    note_in_flight(seen, 2)
    note_in_flight(fresh, 1)
    root_visits = 10 + 2 + 1
    explore = 1.5 * 0.6 * root_visits**0.5 / (1 + 6)
    assert puct(seen, 1.5) == pytest.approx(0.5 + explore)
    assert puct(seen, 1.5, loss=-1.0) == pytest.approx((2.0 - 2) / 6 + explore)
    explore = 1.5 * 0.3 * root_visits**0.5 / (1 + 1)
    assert puct(fresh, 1.5, -0.2) == pytest.approx(-0.2 + explore)
    assert puct(fresh, 1.5, -0.2, loss=-1.0) == pytest.approx(-1.0 + explore)


def test_nothing_in_flight_is_the_published_rule() -> None:
    for child in fork().children:
        assert puct(child, 1.25, 0.1, loss=-1.0) == puct(child, 1.25, 0.1)


def test_a_leaf_in_flight_is_passed_over_until_it_lands() -> None:
    root = fork()
    first = select(root, 1.5)
    assert first is not None
    note_in_flight(first, 1)
    second = select(root, 1.5)
    assert second is not None and second is not first
    note_in_flight(second, 1)
    assert root.busy and select(root, 1.5) is None
    note_in_flight(first, -1)
    assert select(root, 1.5) is first
    first.close()
    note_in_flight(first, 0)
    assert root.busy and select(root, 1.5) is None
    note_in_flight(second, -1)
    assert select(root, 1.5) is second
    assert [node.unobserved for node in (root, first, second)] == [0, 0, 0]


class Late(RandomModel):
    """Answers after times that have nothing to do with the question. asked: how often each node was sampled."""

    def __init__(self, seed: int, latencies: int | None) -> None:
        super().__init__(seed)
        self.latencies = random.Random(latencies) if latencies is not None else None
        self.running = self.most = 0
        self.asked: Counter[object] = Counter()

    async def _wait(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(self.latencies.randrange(40) if self.latencies else 0):
            await asyncio.sleep(0)
        self.running -= 1

    async def sample(self, context, n, params):  # type: ignore[no-untyped-def]
        self.asked[params.key] += 1
        await self._wait()
        return await super().sample(context, n, params)

    async def evaluate(self, context):  # type: ignore[no-untyped-def]
        await self._wait()
        return await super().evaluate(context)


async def search(interpreter: ForkInterpreter, seed: int, latencies: int | None, **keys: object) -> tuple[dict, Late]:
    model = Late(seed, latencies)
    shape = {"mode": "mcts", "n_generate_sample": 3, "iterations": 30, "need_value_func": True, "max_depth": 5}
    record = await make_solver(model, interpreter, **shape | keys).solve(ask(answer="7"))
    record["meta"] = without_seconds(record["meta"])
    return record, model


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("keys", [{}, {"update_leaf_value": True}, {"is_sampling": True, "hopeless_value": -0.2}])
async def test_the_tree_does_not_depend_on_what_comes_back_first(
    interpreter: ForkInterpreter, rule: str, keys: dict
) -> None:
    keys = {"leaves_in_flight": 4, "in_flight_rule": rule} | keys
    for seed in range(3):
        prompt, _ = await search(interpreter, seed, None, **keys)
        for latencies in range(2):
            late, model = await search(interpreter, seed, latencies, **keys)
            assert late == prompt
            assert model.most > 1


@pytest.mark.parametrize("leaves", [1, 2, 8, 64])
async def test_every_simulation_expands_a_leaf_of_its_own(interpreter: ForkInterpreter, leaves: int) -> None:
    for seed in range(4):
        record, model = await search(interpreter, seed, seed, leaves_in_flight=leaves)
        assert set(model.asked.values()) == {1}
        assert sum(model.asked.values()) == record["meta"]["simulations"] <= 30


async def test_one_leaf_in_flight_is_the_search_without(interpreter: ForkInterpreter) -> None:
    trees = [(await search(interpreter, 5, 1, in_flight_rule=rule))[0]["react"] for rule in RULES]
    assert trees[0] == trees[1]


async def test_more_leaves_than_the_tree_has_grow_it_as_a_whole(interpreter: ForkInterpreter) -> None:
    """Every leaf of a level is in flight at once; the sum of all backups does not depend on how many were."""

    def say(prompt: str, index: int) -> str:
        return final_step("7") if prompt.count("</step>") == 2 else code_step(f"print({index})")

    roots = []
    for leaves in (1, 100):
        solver = make_solver(
            ScriptedModel(say, lambda prompt: 0.25), interpreter, mode="mcts", n_generate_sample=2, iterations=50,
            need_value_func=True, leaves_in_flight=leaves,
        )  # fmt: skip
        record = await solver.solve(ask())
        assert record["meta"]["simulations"] == 7
        roots.append({tag: (node["visit_count"], node["q_value"]) for tag, node in record["react"].items()})
    assert roots[0] == roots[1]


async def test_a_search_that_is_stopped_keeps_what_is_there_and_owes_nothing(interpreter: ForkInterpreter) -> None:
    """The second leaf never comes back; the third, which waits for it, is kept when time is up."""

    class Stuck(ScriptedModel):
        async def sample(self, context, n, params):  # type: ignore[no-untyped-def]
            if params.key[-1] == "0.0":
                await asyncio.sleep(30)
            return await super().sample(context, n, params)

    def say(prompt: str, index: int) -> str:
        return final_step("7") if "</step>" in prompt else code_step(f"print({index})")

    solver = make_solver(
        Stuck(say, lambda prompt: 0.5), interpreter, mode="mcts", n_generate_sample=2, iterations=9,
        need_value_func=True, max_total_time=1.0, leaves_in_flight=3,
    )  # fmt: skip
    record = await solver.solve(ask())
    assert record["meta"]["timed_out"] is True
    assert "0.1.0" in record["react"] and "0.0.0" not in record["react"]
    assert record["prediction"]["final_answer"] == "7"

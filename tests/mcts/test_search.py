"""Step beam, MCTS and linear searches over a scripted model, with the real interpreter."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from mcts.interpreter import ForkInterpreter
from mcts.model import Sampling
from mcts.search.driver import solve_all
from mcts.search.rules import backup, puct, select
from mcts.trees.node import TOO_DEEP, TOO_MANY_ERRORS, UNPARSABLE, Node
from mcts.trees.record import from_record, to_record
from tests.mcts.conftest import ScriptedModel, ask, code_step, final_step, make_solver

JUNK = "no markup at all"


def depth_of(prompt: str) -> int:
    return prompt.count("</step>")


async def test_greedy_follows_one_chain_and_carries_variables_from_step_to_step(interpreter: ForkInterpreter) -> None:
    def say(prompt: str, index: int) -> str:
        return [code_step("a = 6\nprint(a)"), code_step("print(a * 7)"), final_step("42")][depth_of(prompt)]

    record = await make_solver(ScriptedModel(say), interpreter, mode="react", max_depth=5).solve(ask(answer="42"))
    tree = record["react"]
    assert list(tree) == ["0", "0.0", "0.0.0", "0.0.0.0"]
    assert "<output>\n42\n</output>" in tree["0.0.0"]["text"]
    assert record["prediction"] == {
        "final_answer": "42", "tag": "0.0.0.0", "run": 0, "votes": 1, "candidates": 1, "correct": True,
    }  # fmt: skip


async def test_the_prompt_of_a_step_is_the_published_text(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("1") if depth_of(prompt) else code_step("print(5)"))
    await make_solver(model, interpreter, mode="react").solve(ask("Why?"))
    assert model.prompts[1] == (
        "<question> Why? </question>\n<step>\n<p>\nCompute.\n</p>\n<code>\n```python\nprint(5)\n```\n</code>\n"
        "<output>\n5\n</output>\n</step>\n"
    )


async def test_token_ids_along_a_path_are_what_the_model_saw(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("1") if depth_of(prompt) else code_step("print(5)"))
    tree = (await make_solver(model, interpreter, mode="react").solve(ask()))["react"]
    seen = "".join(chr(token) for tag in ("0", "0.0") for token in tree[tag]["token_ids"])
    assert seen == model.prompts[1]


async def test_an_unparsable_sample_costs_only_itself_in_mcts(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: JUNK if index == 0 else final_step("7"), lambda prompt: 0.5)
    solver = make_solver(model, interpreter, mode="mcts", n_generate_sample=3, iterations=4, need_value_func=True)
    record = await solver.solve(ask(answer="7"))
    tree = record["react"]
    assert tree["0.0"]["final_answer"] == UNPARSABLE and tree["0.0"]["q_value"] == -1.0
    assert tree["0.1"]["final_answer"] == tree["0.2"]["final_answer"] == "7"
    assert record["prediction"]["correct"] is True


async def test_an_unparsable_sample_never_takes_a_place_in_the_beam(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(
        lambda prompt, index: JUNK if index == 0 else final_step("7"), lambda prompt: 0.9 if JUNK in prompt else -0.9
    )
    solver = make_solver(model, interpreter, mode="sbs", n_generate_sample=2, need_value_func=True)
    record = await solver.solve(ask())
    assert [solution["final_answer"] for solution in record["react"]["solutions"]] == ["7"]


async def test_selection_goes_on_elsewhere_when_a_branch_is_exhausted(interpreter: ForkInterpreter) -> None:
    """The first branch is the favourite and ends at once in answers: the budget goes to the second one."""

    def say(prompt: str, index: int) -> str:
        if depth_of(prompt) == 0:
            return code_step(f"x = {index}\nprint(x)")
        return final_step("no") if "\n0\n</output>" in prompt else code_step("print('deeper')")

    def value(prompt: str) -> float:
        return 0.9 if "\n0\n</output>" in prompt else -0.5

    solver = make_solver(
        ScriptedModel(say, value), interpreter, mode="mcts", n_generate_sample=2, iterations=6, max_depth=9,
        need_value_func=True,
    )  # fmt: skip
    record = await solver.solve(ask())
    assert record["meta"]["simulations"] == 6
    assert "0.1.0.0" in record["react"]


async def test_mcts_ends_early_only_when_the_whole_tree_is_exhausted(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step(str(index)))
    solver = make_solver(model, interpreter, mode="mcts", n_generate_sample=2, iterations=40, need_value_func=True)
    assert (await solver.solve(ask()))["meta"]["simulations"] == 1


async def test_too_many_code_errors_in_a_row_end_a_path(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: code_step("1 / 0"))
    tree = (await make_solver(model, interpreter, mode="react", errors_threshold=1, max_depth=9).solve(ask()))["react"]
    assert list(tree) == ["0", "0.0", "0.0.0"]
    assert tree["0.0.0"]["final_answer"] == TOO_MANY_ERRORS and "ZeroDivisionError" in tree["0.0.0"]["text"]


async def test_a_path_ends_beyond_the_maximum_depth(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: code_step("print(1)"))
    record = await make_solver(model, interpreter, mode="react", max_depth=2).solve(ask())
    assert record["react"]["0.0.0.0"]["final_answer"] == TOO_DEEP and record["prediction"] is None


async def test_a_prompt_that_is_too_long_is_a_failure_of_that_node_alone(interpreter: ForkInterpreter) -> None:
    def say(prompt: str, index: int) -> str:
        return final_step("7") if index else code_step("print('long' * 60)")

    solver = make_solver(
        ScriptedModel(say, window=150), interpreter, mode="mcts", n_generate_sample=2, iterations=3,
        is_sampling=True,
    )  # fmt: skip
    tree = (await solver.solve(ask(answer="7")))["react"]
    assert tree["0.0"]["q_value"] == -1.0 and tree["0.0"]["terminal"] and tree["0.1"]["q_value"] == 1.0


async def test_rewards_of_training_follow_the_grader_and_leave_out_the_undecided(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step(["7", "8", "undecidable"][index]), lambda prompt: 0.25)
    solver = make_solver(
        model, interpreter, mode="mcts", n_generate_sample=3, is_sampling=True, need_value_func=True
    )  # fmt: skip
    tree = (await solver.solve(ask(answer=["7", "seven"])))["react"]
    assert [tree[tag].get("reward") for tag in ("0.0", "0.1", "0.2")] == [1.0, -1.0, None]
    assert tree["0.2"]["visit_count"] == 0
    assert tree["0"]["visit_count"] == 3 and tree["0"]["q_value"] == pytest.approx(0.25 / 3)


async def test_inference_backs_up_the_value_of_new_answers_after_the_leaf(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("7"), lambda prompt: 0.5 if depth_of(prompt) else -0.5)
    solver = make_solver(model, interpreter, mode="mcts", n_generate_sample=1, need_value_func=True)
    tree = (await solver.solve(ask()))["react"]
    assert (tree["0"]["value"], tree["0"]["visit_count"], tree["0"]["q_value"]) == (-0.5, 2, 0.0)
    assert (tree["0.0"]["value"], tree["0.0"]["q_value"]) == (0.5, 0.5)


async def test_a_tree_says_which_simulation_made_each_node(interpreter: ForkInterpreter) -> None:
    def say(prompt: str, index: int) -> str:
        return final_step("7") if depth_of(prompt) > 1 else code_step(f"print({index})")

    model = ScriptedModel(say, lambda prompt: 0.5)
    keys = {"iterations": 6, "n_generate_sample": 2, "need_value_func": True}
    solver = make_solver(model, interpreter, mode="mcts", **keys)
    record = await solver.solve(ask())
    tree = record["react"]
    inner = [tag for tag in tree if f"{tag}.0" in tree]
    made = [tree[f"{tag}.0"]["born"] for tag in inner]
    assert sorted(made) == list(range(1, len(inner) + 1)) and len(inner) == record["meta"]["simulations"]
    assert all(tree[f"{tag}.0"]["born"] == tree[f"{tag}.1"]["born"] > tree[tag].get("born", 0) for tag in inner)
    assert "born" not in tree["0"]
    assert to_record(from_record(tree), searched=True)["0.1"]["born"] == 1
    beam = make_solver(model, interpreter, mode="sbs", n_generate_sample=2)
    nodes = (await beam.solve(ask()))["react"]
    assert not any("born" in node for tag, node in nodes.items() if tag != "solutions")


async def test_duplicates_are_merged_when_asked(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("7" if index < 3 else "8"))
    for remove, tags in ((True, ["0", "0.0", "0.3"]), (False, ["0", "0.0", "0.1", "0.2", "0.3"])):
        solver = make_solver(model, interpreter, mode="sbs", n_generate_sample=4, remove_duplicate=remove)
        tree = (await solver.solve(ask()))["react"]
        assert [tag for tag in tree if tag != "solutions"] == tags
        assert tree["0.0"].get("duplicates", 0) == (2 if remove else 0)


async def test_the_beam_keeps_the_most_valued_and_narrows_with_every_answer(interpreter: ForkInterpreter) -> None:
    def say(prompt: str, index: int) -> str:
        if depth_of(prompt) == 0:
            return final_step("early") if index == 0 else code_step(f"print({index})")
        return final_step("late")

    values = {"early": 0.3, "\n3\n": 0.8, "\n2\n": 0.1}

    def value(prompt: str) -> float:
        return next((number for part, number in values.items() if part in prompt), -0.9)

    solver = make_solver(
        ScriptedModel(say, value), interpreter, mode="sbs", step_beam_width=2, n_generate_sample=2, need_value_func=True
    )
    tree = (await solver.solve(ask()))["react"]
    assert [tag for tag in tree if tag.count(".") == 1] == ["0.0", "0.1", "0.2", "0.3"]
    assert [tag for tag in tree if tag.count(".") == 2] == ["0.3.0", "0.3.1"]
    assert [solution["tag"] for solution in tree["solutions"]] == ["0.3.0", "0.0"]


async def test_several_runs_decide_by_majority_with_noise_of_their_own(interpreter: ForkInterpreter) -> None:
    answers = iter(["5", "7", "7"])
    model = ScriptedModel(lambda prompt, index: final_step(next(answers)))
    record = await make_solver(model, interpreter, seed=3, mode="react", n_runs=3).solve(ask(index=8))
    assert record["prediction"]["final_answer"] == "7" and record["prediction"]["votes"] == 2
    assert len(record["runs"]) == 2
    assert model.keys == [(3, 8, 0, "0"), (3, 8, 1, "0"), (3, 8, 2, "0")]


async def test_a_beam_votes_over_its_own_solutions(interpreter: ForkInterpreter) -> None:
    answers = ["5", "7", "7"]
    model = ScriptedModel(
        lambda prompt, index: final_step(answers[index]), lambda prompt: 0.9 if "$5$" in prompt else 0.1
    )
    keys = {"mode": "sbs", "step_beam_width": 3, "need_value_func": True}
    assert (await make_solver(model, interpreter, **keys).solve(ask()))["prediction"]["final_answer"] == "5"
    record = await make_solver(model, interpreter, vote="majority", **keys).solve(ask())
    assert record["prediction"]["final_answer"] == "7" and record["prediction"]["candidates"] == 3


async def test_the_time_limit_bounds_a_question_and_keeps_its_tree(interpreter: ForkInterpreter) -> None:
    class Slow(ScriptedModel):
        async def sample(self, context, n, params: Sampling):  # type: ignore[no-untyped-def]
            if depth_of("".join(map(chr, context.all_token_ids()))):
                await asyncio.sleep(30)
            return await super().sample(context, n, params)

    model = Slow(lambda prompt, index: final_step("7") if index else code_step("print(1)"), lambda prompt: 0.1)
    solver = make_solver(
        model, interpreter, mode="mcts", n_generate_sample=2, iterations=9, need_value_func=True, max_total_time=0.5
    )
    record = await solver.solve(ask())
    assert record["meta"]["timed_out"] is True
    assert record["prediction"]["final_answer"] == "7"


async def test_questions_with_the_same_text_get_trees_of_their_own(interpreter: ForkInterpreter) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("7"))
    solver = make_solver(model, interpreter, mode="react")
    pairs = [pair async for pair in solve_all(solver, [ask(index=0), ask(index=1)], 2)]
    assert sorted(record["meta"]["index"] for _, record in pairs) == [0, 1]
    assert {key[1] for key in model.keys} == {0, 1}


async def test_records_are_json_and_read_back_to_the_same_tree(interpreter: ForkInterpreter) -> None:
    def say(prompt: str, index: int) -> str:
        return final_step("7") if depth_of(prompt) else code_step(f"print({index})")

    solver = make_solver(
        ScriptedModel(say, lambda prompt: 0.5), interpreter, mode="mcts", iterations=3, n_generate_sample=2,
        need_value_func=True,
    )  # fmt: skip
    record = json.loads(json.dumps(await solver.solve(ask())))
    root = from_record(record["react"])
    assert root.visit_count == record["react"]["0"]["visit_count"]
    assert [child.q_value for child in root.children] == [record["react"][f"0.{i}"]["q_value"] for i in (0, 1)]


def test_puct_is_q_plus_prior_weighted_exploration() -> None:
    root = Node(visit_count=9)
    child = Node("0.0", root, 1, prior=0.5, visit_count=2, value_sum=1.0)
    fresh = Node("0.1", root, 1, prior=0.5)
    assert puct(child, 1.25) == pytest.approx(0.5 + 1.25 * 0.5 * 3 / 3)
    assert puct(fresh, 1.25) == pytest.approx(1.25 * 0.5 * 3)
    assert puct(fresh, 1.25, first_play_urgency=-0.4) == pytest.approx(1.25 * 0.5 * math.sqrt(9) - 0.4)


def test_backup_reaches_the_root_and_first_estimates_stay() -> None:
    root = Node(value=0.2)
    child = Node("0.0", root, 1)
    backup(child, -1.0)
    backup(child, 0.5)
    assert (root.visit_count, root.value_sum, root.value) == (2, -0.5, 0.2)
    assert (child.q_value, child.value) == (-0.25, -1.0)


def test_selection_skips_closed_nodes_and_knows_when_nothing_is_open() -> None:
    root = Node(visit_count=4)
    root.children = [Node("0.0", root, 1, prior=0.9), Node("0.1", root, 1, prior=0.1)]
    assert select(root, 1.0) is root.children[0]
    root.children[0].close()
    assert select(root, 1.0) is root.children[1]
    root.children[1].close()
    assert root.closed and select(root, 1.0) is None


@pytest.mark.parametrize(
    ("code", "published", "ends"),
    [
        ("print('Error in percent: 3')", False, False),
        ("print('Error in percent: 3')", True, True),
        ("raise Exception('no')", False, True),
        ("raise Exception('no')", True, False),
        ("1 / 0", False, True),
    ],
)
async def test_a_code_error_is_a_failed_run_and_not_a_word(
    interpreter: ForkInterpreter, code: str, published: bool, ends: bool
) -> None:
    model = ScriptedModel(lambda prompt, index: final_step("1") if depth_of(prompt) else code_step(code))
    solver = make_solver(model, interpreter, mode="react", errors_threshold=0, published_rules=published)
    record = await solver.solve(ask())
    assert (record["react"]["0.0"]["final_answer"] == TOO_MANY_ERRORS) is ends

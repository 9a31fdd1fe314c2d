"""ToRA's agents: what they read, their shipped examples, and every search over them. Tests are named by the
fault of the published loop that ours does not have, where there is one."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from eval.grading.extract import extract
from eval.grading.grader import grade
from mcts.config import Config
from mcts.interpreter import ForkInterpreter
from mcts.markup import PROMPTS, make_markup
from mcts.search.driver import Solver
from mcts.trees.node import TOO_MANY_CALLS
from tests.mcts.conftest import ScriptedModel, ask, exact

KEYS = {"prompt_wrap": "tora", "result_unwrap": "tora", "step_delim": "\n", "code_state": "fresh", "max_tool_calls": 3}
KEYS |= {"errors_threshold": 8, "max_depth": 8, "train_prompt": True}
PROGRAM = "Compute.\n```python\nprint({})\n```\n"
BLOCKS = re.compile(r"```python\n(.*?)\n```\n```output\n(.*?)\n```", re.DOTALL)


def markup(name: str = "tora", **keys):
    return make_markup(name, keys.pop("step_delim", "\n"), extract=extract, **{"train_prompt": True, **keys})


def solver(model: ScriptedModel, interpreter: ForkInterpreter, **keys: object) -> Solver:
    config = Config.model_validate(KEYS | keys)
    made = make_markup(config.prompt_wrap, config.step_delim, train_prompt=config.train_prompt, extract=extract)
    return Solver(config, model, made, interpreter, exact)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def interpreter() -> AsyncIterator[ForkInterpreter]:
    async with ForkInterpreter(profile="tora", timeout_seconds=20) as running:
        yield running


# --- prompts and examples


def test_trained_models_get_the_prompt_that_they_know() -> None:
    assert markup().prompt("1+1?") == "<|user|>\n1+1?\n<|assistant|>\n"


@pytest.mark.parametrize("name", ["tora", "pal", "cot"])
@pytest.mark.parametrize("level", ["gsm8k", "math"])
def test_a_few_shot_prompt_holds_instructions_examples_and_the_question_last(name: str, level: str) -> None:
    path = PROMPTS / f"{name}_{level}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    prompt = markup(name, few_shot_path=str(path), num_few_shot=3, train_prompt=False).prompt("Who?")
    assert prompt.count("\n---\n") == 4 and prompt.count("Question: ") == 4
    assert all((row["question"] in prompt) == (place < 3) for place, row in enumerate(rows))
    assert prompt.endswith({"tora": "Who?\n\nSolution:", "pal": "Question: Who?", "cot": "Who?\nAnswer:"}[name])


@pytest.mark.parametrize("level", ["gsm8k", "math"])
async def test_no_worked_example_is_invalid_or_wrong(interpreter: ForkInterpreter, level: str) -> None:
    """Every program runs and prints what the example says, and every solution gives the stated answer."""
    for name in ("tora", "pal", "cot"):
        for row in json.loads((PROMPTS / f"{name}_{level}.json").read_text(encoding="utf-8")):
            blocks = BLOCKS.findall(row["solution"])
            for code, output in blocks:
                assert (await interpreter.run(None, code)).observation == output
            answer = extract(row["solution"])
            if name == "pal":
                execution = await interpreter.run(None, markup("pal").read(row["solution"]).code)
                assert not execution.failed
                answer = execution.observation
            assert bool(blocks) == (name == "tora") and grade(row["answer"], answer).equal, (row["question"], answer)


# --- reading


def test_a_block_gets_its_output_as_trained_models_expect() -> None:
    step = markup().read("I add.\n```python\nprint(2)\n```\n")
    assert step.code == "print(2)\n" and not step.final_answer
    assert markup().observed(step, "2") + markup().step_delim == (
        "I add.\n```python\nprint(2)\n```\n```output\n2\n```\n"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("The answer is 7.", "7"),
        ("That is all.", "18"),  # nothing stated: what was printed last
        ("See:\n```\n1 2\n```\nThe answer is $3$.", "$3$"),
    ],
)
def test_a_step_without_code_is_the_answer(text: str, answer: str) -> None:
    before = "```python\nprint('\\\\boxed{5}')\n```\n```output\n18\n```"
    assert markup().read(text, before).final_answer == answer


def test_code_runs_although_the_same_text_holds_a_box() -> None:
    step = markup().read("Perhaps $\\boxed{3}$; I check.\n```python\nprint('\\\\boxed{4}')\n```")
    assert step.code and not step.final_answer


def test_no_block_but_the_last_is_lost() -> None:
    assert markup().read("```python\nx = 1\n```\nThen\n```python\nprint(x)\n```").code == "x = 1\n\nprint(x)\n"


def test_text_that_breaks_off_inside_a_block_is_no_answer() -> None:
    assert not markup().read("I get\n```python\nx = 12").parsable
    assert not markup().read("It is $\\boxed{2}$.\n```python\nx = 12").parsable  # its code did not run
    assert not markup().read("").parsable


def test_few_shot_models_are_stopped_before_they_invent_a_question() -> None:
    assert {"\n---", "\nQuestion:"} <= set(markup(train_prompt=False).stop)
    assert markup().stop == ("```output", "</s>")


def test_prose_goes_on_until_it_states_an_answer() -> None:
    cot = markup("cot", step_delim="\n\n", train_prompt=False)
    assert cot.read("First 3.").thought and not cot.read("  ").parsable
    assert cot.read("The answer is $4$.").final_answer == "$4$"
    assert cot.read("So 4 remain.", finish="eos").final_answer == "4"
    assert cot.read("---", "So 4 remain.").final_answer == "4"
    assert cot.read("So 4 remain.\nQuestion: What is 2?").final_answer == "4"


# --- in the search


async def solve(interpreter: ForkInterpreter, say, **keys: object):
    model = ScriptedModel(say, value=keys.pop("value", lambda prompt: 0.0))
    record = await solver(model, interpreter, **keys).solve(ask())
    return record, model


def guess_then_answer(prompt: str, index: int) -> str:
    """Prints 40 + index, then boxes what was printed."""
    outputs = re.findall(r"```output\n(.*?)\n```", prompt)
    return f"So $\\boxed{{{outputs[-1]}}}$." if outputs else PROGRAM.format(40 + index)


def prefer_42(prompt: str) -> float:
    return 0.9 if "42" in prompt else -0.5


async def test_greedy_runs_code_and_answers(interpreter: ForkInterpreter) -> None:
    record, model = await solve(interpreter, guess_then_answer, mode="react")
    assert record["prediction"]["final_answer"] == "40"
    assert model.prompts[-1].endswith("<|assistant|>\nCompute.\n```python\nprint(40)\n```\n```output\n40\n```\n")


async def test_self_consistency_takes_the_majority_of_fifty_runs(interpreter: ForkInterpreter) -> None:
    def say(prompt: str, index: int) -> str:
        return "So $\\boxed{2}$." if len(asked) % 3 else f"So $\\boxed{{{100 + len(asked)}}}$."

    asked: list[int] = []
    record, _ = await solve(interpreter, lambda p, i: asked.append(i) or say(p, i), mode="react", n_runs=50)
    assert record["prediction"]["final_answer"] == "2"
    assert record["prediction"]["candidates"] == 50 and record["prediction"]["votes"] == 34


@pytest.mark.parametrize(
    "keys",
    [
        {"mode": "sbs", "n_generate_sample": 3, "step_beam_width": 1},
        {"mode": "mcts", "n_generate_sample": 3, "iterations": 8, "step_beam_width": 1},
    ],
)
async def test_searches_find_the_valued_answer(interpreter: ForkInterpreter, keys: dict) -> None:
    record, _ = await solve(
        interpreter,
        guess_then_answer,
        need_value_func=True,
        value=lambda p: 0.9 if "42" in p else -0.5,
        **keys,
    )
    assert record["prediction"]["final_answer"] == "42"


@pytest.mark.parametrize("mode", ["react", "sbs", "mcts"])
async def test_pal_and_cot_run_under_every_search(interpreter: ForkInterpreter, mode: str) -> None:
    keys = {"mode": mode, "need_value_func": mode != "react", "iterations": 4, "n_generate_sample": 2}
    program = "```python\nprint('on the way')\ndef solution():\n    return 6 * 7\n```\n"
    record, _ = await solve(interpreter, lambda p, i: program, prompt_wrap="pal", result_unwrap="pal", **keys)
    assert record["prediction"]["final_answer"] == "42"
    lines = ["Six sevens.", "The answer is 42."]
    record, _ = await solve(
        interpreter, lambda p, i: lines["sevens" in p], prompt_wrap="cot", result_unwrap="cot", **keys
    )
    assert record["prediction"]["final_answer"] == "42" and record["prediction"]["tag"].count(".") == 2


async def test_an_error_of_a_pal_program_is_no_answer(interpreter: ForkInterpreter) -> None:
    say = lambda prompt, index: "```python\ndef solution():\n    return 1 / 0\n```"  # noqa: E731
    record, _ = await solve(interpreter, say, prompt_wrap="pal", result_unwrap="pal", mode="react")
    assert record["prediction"] is None and "ZeroDivisionError" in record["react"]["0.0"]["text"]


async def test_tool_calls_are_bounded_and_the_text_stays_as_it_was(interpreter: ForkInterpreter) -> None:
    record, _ = await solve(interpreter, lambda p, i: PROGRAM.format(1), mode="react")
    *ran, last = list(record["react"].values())[1:]
    assert [node["action"] for node in (*ran, last)] == ["python_interpreter"] * 3 + [""]
    assert last["final_answer"] == TOO_MANY_CALLS and TOO_MANY_CALLS not in last["text"]
    assert record["meta"]["snippets"] == 3


@pytest.mark.parametrize(("state", "seen"), [("fresh", "NameError: name 'x' is not defined"), ("carried", "7")])
async def test_code_state_is_fresh_for_each_block_or_carried_on(
    interpreter: ForkInterpreter, state: str, seen: str
) -> None:
    def say(prompt: str, index: int) -> str:
        if "output" not in prompt:
            return "```python\nx = 7\n```"
        return "Done: $\\boxed{1}$" if "print" in prompt else "```python\nprint(x)\n```"

    record, _ = await solve(interpreter, say, mode="react", code_state=state)
    assert f"```output\n{seen}\n```" in record["react"]["0.0.0"]["text"]

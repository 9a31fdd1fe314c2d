"""A state that lost its process is rebuilt by running its code again; one that ends differently then is no longer
taken for the state that its path shows."""

from __future__ import annotations

import re

import pytest

from mcts.interpreter import Execution, ForkInterpreter, Limits
from mcts.trees.node import REPLAY_DIFFERS
from tests.mcts.conftest import ScriptedModel, ask, code_step, final_step, make_solver

pytestmark = pytest.mark.filterwarnings("ignore:the sandbox lacks")
CLOCK = "import time\nx = time.time_ns()\nprint(x)"
ONCE_ONLY = "import time\nassert time.time() < {}\nx = 1"  # holds the first time, and fails later


async def evicted(interpreter: ForkInterpreter, code: str) -> Execution:
    """The execution of `code`, whose state has no process any more."""
    execution = await interpreter.run(None, code)
    assert execution.state is not None and not execution.replay_differs
    interpreter._discard(execution.state.node)
    return execution


async def test_a_replay_with_another_observation_is_said_in_every_later_execution() -> None:
    async with ForkInterpreter(preload=()) as interpreter:
        base = await evicted(interpreter, CLOCK)
        child = await interpreter.run(base.state, "y = x")
        assert child.replay_differs and not child.failed
        grandchild = await interpreter.run(child.state, "x - y")
        assert grandchild.replay_differs and grandchild.observation == "0"


async def test_a_replay_that_raises_is_said() -> None:
    async with ForkInterpreter(preload=()) as interpreter:
        import time

        base = await evicted(interpreter, ONCE_ONLY.format(time.time() + 2))
        time.sleep(2.1)
        child = await interpreter.run(base.state, "x")
        assert child.replay_differs and child.failed


async def test_a_replay_that_does_not_end_is_said_and_the_snippet_does_not_run() -> None:
    async with ForkInterpreter(preload=(), timeout_seconds=2) as interpreter:
        import time

        code = f"import time\nwhile time.time() > {time.time() + 1}: pass\nx = 1"
        base = await evicted(interpreter, code)
        time.sleep(1.1)
        child = await interpreter.run(base.state, "print(x)")
        assert child.replay_differs and child.failed and child.state is base.state
        assert child.observation.startswith("ReplayError: ") and "TimeoutError" in child.observation


async def test_a_replay_that_ends_as_before_is_not_said() -> None:
    async with ForkInterpreter(preload=()) as interpreter:
        for code in ("import random\nx = random.random()\nprint(x)", "x = 7\n1 / 0", "x = lambda: 7\nprint(x)"):
            base = await evicted(interpreter, code)
            assert not (await interpreter.run(base.state, "x")).replay_differs, code


class Forgetful:
    """An interpreter that evicts every state at once."""

    def __init__(self, interpreter: ForkInterpreter) -> None:
        self.interpreter = interpreter

    async def run(self, state, code: str) -> Execution:
        execution = await self.interpreter.run(state, code)
        if execution.state is not None:
            self.interpreter._discard(execution.state.node)
        return execution


async def test_the_tree_and_its_summary_say_which_steps_stand_on_another_state() -> None:
    steps = {0: code_step(CLOCK), 1: code_step("print(x % 2 in (0, 1))"), 2: final_step("7")}
    async with ForkInterpreter(preload=()) as interpreter:
        model = ScriptedModel(lambda prompt, index: steps[prompt.count("</step>")])
        solver = make_solver(model, Forgetful(interpreter), mode="react", max_depth=8)
        record = await solver.solve(ask())
    first, second, last = (record["react"][tag] for tag in ("0.0", "0.0.0", "0.0.0.0"))
    assert "reason" not in first and second["reason"] == REPLAY_DIFFERS and last["final_answer"] == "7"
    assert record["meta"]["failures"] == {REPLAY_DIFFERS: 1}


# --- limits


async def test_every_limit_of_a_state_can_be_set() -> None:
    limits = Limits(timeout_seconds=20, folder_files=8, open_files=56, code_bytes=200, observation_characters=50)
    async with ForkInterpreter(limits, preload=()) as interpreter:
        if interpreter._server is not None and interpreter._server.folder == "/folders":
            many = await interpreter.run(None, "for i in range(9): open(f'{i}', 'w').close()")
            assert "OSError" in many.observation
        opened = await interpreter.run(None, "fs = [open('/dev/null') for _ in range(60)]")
        assert "OSError" in opened.observation
        assert "may have 200 bytes" in (await interpreter.run(None, "x" * 300)).observation
        forged = "import os\nos.write(48, b'False 0.0\\n' + b'x' * 500)"
        observation = (await interpreter.run(None, forged)).observation
        assert len(observation) < 120 and not re.search("x" * 60, observation)


@pytest.mark.parametrize(
    "bounds", [{"memory_bytes": 0}, {"max_states": 1.5}, {"workers": True}, {"code_bytes": 10**6}, {"open_files": 8}]
)
def test_a_bound_that_cannot_be_kept_is_refused(bounds: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bounds))):
        ForkInterpreter(**bounds)


async def test_an_object_is_printed_alike_in_every_process() -> None:
    """The address would make another tree of the same seed; a number that the snippet prints stays."""
    code = "def f(): yield 1\nprint(f, f(), object())\nprint(hex(0x7f00deadbeef))"
    async with ForkInterpreter(preload=()) as interpreter:
        observation = (await interpreter.run(None, code)).observation
    assert "<function f at 0x0> <generator object f at 0x0> <object object at 0x0>" in observation
    assert "0x7f00deadbeef" in observation

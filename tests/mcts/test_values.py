"""States that are values: which snippets may run beside others, and that nobody can tell that they did."""

from __future__ import annotations

import asyncio
import math

import pytest

from mcts.interpreter import ForkInterpreter
from mcts.interpreter.values import ELSEWHERE, LARGEST_STATE_BYTES, is_plain, load, may_be_plain, save

from .hostile.snippets import HOSTILE

pytestmark = pytest.mark.filterwarnings("ignore:the sandbox lacks")

PLAIN = [
    "x = 3 * 7\nprint(x)",
    "import math\nr = math.sqrt(2)\nround(r, 3)",
    "from math import comb as choose, pi\ns = choose(10, 3)\nprint(s, pi)",
    "total = 0\nfor i in range(1, 101):\n    if i % 3 == 0 and i % 5:\n        total += i\nprint(total)",
    "xs = [i * i for i in range(9)]\nys = xs\nys.append(xs[-1])\nprint(xs, ys, sum(xs))",
    "d = {'a': [1, 2], 2: (3, None)}\nd['b'] = d['a']\nd['a'][0] = 9\nprint(d)\nd",
    "n = float('nan')\npair = [n, n]\nprint(n in pair, pair)",
    "a, *b = 'x y z'.split()\nprint(f'{a!r:>5} {len(b)} {1 / 3:.3f}')",
    "print(1)\nprint(2 / 3)",
    "x = 1\n1 / 0",
    "y = missing + 1",
    "while = 3",
    "  indented = 5\n  print(indented)",
    "```python\nprint(4)\n```\ntext\n```output\n4\n```",
    "print(len({1, 2, 2}), sorted({3, 1}), max([1, 5], key=str), -0.0, 1e400)",
    "assert 1 == 2",
    "print(sum(1 / k for k in range(1, 50)), [].pop())",
    "sum = 4\nsum([1])",
    "k = 3\nf=lambda x:(x - k) * 2\nprint(f(5))\nk = 4",
    "f = lambda n: 1 if n < 2 else n * f(n - 1)\ng = lambda *a: sorted(a, key=lambda x: -x)\nprint(f(9), g(1, 3), f)",
    "print(10 ** 600)\n10 ** 600",
]
NEXT = "[(name, value) for name, value in globals().items() if name[0] != '_']"

NOT_PLAIN = [
    "print(__builtins__)",
    "().__class__",
    "print.__self__",
    "f'{print.__self__}'",
    "'{0.__class__}'.format(1)",
    "import math as __builtins__",
    "from math import *",
    "from math import sqrt as __name__",
    "import math.os",
    "import os",
    "math.pi = 3",
    "import math\nmath.pi = 3",
    "import math\nmath.sqrt.__self__",
    "def f(): pass",
    "f = lambda x=[]: x",
    "f = lambda __builtins__: 0",
    "f = lambda: open",
    "f = lambda: f.__globals__",
    "class A: pass",
    "del x",
    "x = b'bytes'",
    "x = y = ...",
    "print(1, file=3)",
    "print(1, flush=True)",
    "dict(**{'a': 1})",
    "(x := 3)",
    "try:\n    x\nfinally:\n    pass",
    "with x: pass",
    "raise x",
    "global x",
    "x is y",
    "match 1:\n    case 1: pass",
    "yield 3",
    "x: int = 3",
    "for __builtins__ in [{}]: pass",
    "[0 for __builtins__ in [{}]]",
    *(
        f"{name}"
        for name in ("open", "eval", "exec", "getattr", "type", "vars", "globals", "id", "hash", "exit", "quit")
    ),
    *(f"{name} = 3" for name in ("id", "type", "__import__")),
]


@pytest.mark.parametrize("code", NOT_PLAIN)
def test_a_snippet_that_could_reach_more_than_its_values_is_not_plain(code):
    assert not is_plain(code)


def test_no_hostile_snippet_that_changes_its_process_is_plain():
    harmless = {
        ("endless loops", "in Python"),
        ("endless loops", "in a huge power"),
        ("endless loops", "in the digits of a huge integer"),
        ("recursion", "in repr"),
        ("memory", "bomb of strings"),
        ("output", "gigabytes in a loop"),
        ("output", "half a gigabyte at once"),
        ("output", "NUL bytes"),
        ("output", "lone surrogates"),
        ("values", "nothing"),
        ("values", "Windows line ends"),
        ("values", "form feeds"),
        ("values", "tabs and spaces"),
    }
    plain = {
        (kind, name)
        for kind, snippets in HOSTILE.items()
        for name, (_, code) in snippets.items()
        if may_be_plain(code) and is_plain(code)
    }
    assert plain <= harmless, plain - harmless


def test_every_name_of_python_is_known_or_left_out():
    assert {"open", "eval", "exec", "getattr", "setattr", "type", "object", "super", "memoryview"} <= ELSEWHERE


async def test_nobody_can_tell_that_a_snippet_ran_beside_others():
    """The same observations and the same variables as in a process of its own."""
    async with ForkInterpreter(timeout_seconds=20, preload=()) as interpreter:
        own = (await interpreter.run(None, "import os\ndel os")).state
        assert own.node.values is None

        async def both(code: str) -> None:
            assert may_be_plain(code) and is_plain(code)
            beside, forked = await asyncio.gather(interpreter.run(None, code), interpreter.run(own, code))
            assert beside.state.node.values is not None and beside.state.node.process is None
            assert (beside.observation, beside.failed) == (forked.observation, forked.failed)
            seen = [await interpreter.run(one.state, NEXT) for one in (beside, forked)]
            assert seen[0].observation == seen[1].observation
            again = [await interpreter.run(one.state, "1\n" + code) for one in (beside, forked)]
            assert again[0].observation == again[1].observation

        await asyncio.gather(*(both(code) for code in PLAIN))


async def test_values_that_cannot_be_saved_get_a_process():
    async with ForkInterpreter(timeout_seconds=20, preload=()) as interpreter:
        for code in ("x = {3, 4}", "x = range(9)", "x = len", "x = [0] * 10 ** 5", "x = [i for i in range(3000)]",
                     f"x = '.' * {LARGEST_STATE_BYTES + 1}", "x = []\nx.append(x)", "x = (i for i in 'ab')",
                     "x = 7 ** 10 ** 5"):  # fmt: skip
            state = (await interpreter.run(None, code)).state
            assert state.node.values is None and state.node.alive()
            assert not (await interpreter.run(state, "y = x")).failed


async def test_an_endless_snippet_costs_its_host_and_nobody_else():
    async with ForkInterpreter(timeout_seconds=1, preload=()) as interpreter:
        base = (await interpreter.run(None, "x = [5]")).state
        for code in ("while True: x.append(1)", "x.append(7 ** 10 ** 9)"):
            late = await interpreter.run(base, code)
            assert late.observation.startswith("TimeoutError: ") and late.failed and late.state is base
            assert (await interpreter.run(base, "x")).observation == "[5]"


async def test_siblings_of_values_do_not_see_each_other():
    async with ForkInterpreter(preload=()) as interpreter:
        base = (await interpreter.run(None, "x = [1]\ny = x")).state
        runs = await asyncio.gather(*(interpreter.run(base, f"x.append({i})\ny") for i in range(20)))
        assert [run.observation for run in runs] == [f"[1, {i}]" for i in range(20)]
        process = await interpreter.run(runs[7].state, "import os\ny.append(0)\n(x, y is x)")
        assert process.observation == "([1, 7, 0], True)"
        assert not interpreter._live.keys() - {process.state.node}


def loaded(saved: bytes) -> str:
    namespace: dict = {}
    load(saved, namespace)
    return str(namespace)


@pytest.mark.parametrize(
    "variables",
    [{}, {"x": [1, (2.5, "a")], "m": math, "f": math.gcd}, {"d": {1: None, "k": True}, "e": -0.0, "c": 2j}],
)
def test_what_is_saved_is_loaded(variables):
    saved = save(variables)
    assert saved is not None and loaded(saved) == str(variables)


def test_an_object_with_two_names_keeps_both():
    one = [float("nan")]
    saved = save({"a": one, "b": [one, one[0]]})
    assert saved is not None
    again: dict = {}
    load(saved, again)
    assert again["b"][0] is again["a"] and again["b"][1] is again["a"][0]

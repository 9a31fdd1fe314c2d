"""The interpreter's promises: states, observations, eviction, loops, ends."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mcts.interpreter import ForkInterpreter, InterpreterError
from mcts.interpreter.tree import is_light

from .test_interpreter_hostile import needs_seccomp, processes_below
from .test_last_child import last_child

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:the sandbox lacks")


@pytest.fixture(scope="module")
def interpreters():
    """One interpreter a profile, shared by every test and so by many event loops."""
    made = {profile: ForkInterpreter(profile=profile, timeout_seconds=20) for profile in ("alphamath", "arbor", "tora")}
    yield made
    for interpreter in made.values():
        interpreter.close()


@pytest.fixture
def interpreter(interpreters) -> ForkInterpreter:
    return interpreters["alphamath"]


async def say(interpreter: ForkInterpreter, *snippets: str) -> str:
    """The observation of the last of several snippets in one state."""
    state = None
    for code in snippets:
        execution = await interpreter.run(state, code)
        state = execution.state
    return execution.observation


@pytest.mark.parametrize(
    ("code", "observation"),
    [
        ("print(3)", "3"),
        ("x = 2\nx + 1", "3"),
        ("x = 2", ""),
        ("print(22 / 7)", "3.1429"),
        ("22 / 7", str(22 / 7)),  # only printed text is shortened
        ("print(0.5)", "0.5"),
        ("print(1e-10)", "1e-10"),
        ("print('3.14159 m')", "3.14159 m"),
        ("print('x' * 501)", "x" * 250 + "..." + "x" * 250),
        ("print('x' * 500)", "x" * 500),
        ("print(1)\nprint(2 / 3)", "1: 1\n2 / 3: 0.6667"),
        ("x = 7\nprint('x', x)\nfor i in range(2): print(i)\nprint(x, end='')", "'x', x: x 7\n0\n1\nx: 7"),
        ("print(5)\ny = 6", "5"),  # the original loses what is not printed last
        ("print(5)\n6", "5"),
        ("def f():\n    print('in f')\n    return 8\nf()", "in f\n8"),
        ("print(1)\nraise ValueError('no')", "ValueError: no"),
        ("1 +", "SyntaxError: invalid syntax (<unknown>, line 1)"),
        ("```python\nprint(3)\n```", "3"),
        ("```\nprint(3)", "3"),
        ("if True:\n    print(3)", "3"),
        ("'a'", "a"),
        ("print(len(str(3 ** 10000)))", "4772"),
        ("import sympy as s\nx = s.Symbol('x')\ns.solve(x**2 - 2, x)", "[-sqrt(2), sqrt(2)]"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(1)", "P(x=1)"),
        ("import pickle\nclass A: pass\ntype(pickle.loads(pickle.dumps(A()))).__name__", "A"),
        ("assert __name__ == '__main__'", ""),
        ("import sys\nprint('hidden', file=sys.stderr)\nsys.stdout.buffer.write(b'seen\\n')\nNone", "seen"),
    ],
)
async def test_alphamath_observations(interpreter, code, observation):
    """Among values, in a fork and as a last child."""
    assert (await interpreter.run(None, code)).observation == observation
    base = (await interpreter.run(None, "import os\ndel os")).state
    assert (await interpreter.run(base, code)).observation == observation
    assert (await last_child(interpreter, base, code)).observation == observation


@pytest.mark.parametrize(
    ("code", "observation"),
    [
        ("print(3)", "3"),
        ("1 / 3", str(1 / 3)),
        ("print(22 / 7)", str(22 / 7)),
        ("print(1)\nprint(2)\n3", "1\n2"),
        ("x = 1", "Done"),
        ("print(1)\ny", "NameError: name 'y' is not defined"),
        ("raise ValueError('a\\nb')", "b"),
        ("import json\njson.loads('')", "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("import sys\nprint(1)\nsys.exit(0)", "SystemExit: 0"),
        ("print('x' * 401)", "x" * 200 + "..." + "x" * 200),
    ],
)
async def test_tora_observations(interpreters, code, observation):
    assert (await interpreters["tora"].run(None, code)).observation == observation


async def test_arbor_keeps_what_was_printed_before_an_error(interpreters):
    assert await say(interpreters["arbor"], "print(22 / 7)\nprint(2)\n1 / 0") == (
        "22 / 7: 3.1429\n2: 2\nZeroDivisionError: division by zero"
    )
    assert (await interpreters["arbor"].run(None, "10 ** 600")).observation == "1" + "0" * 249 + "..." + "0" * 250


async def test_golden_observations_are_reproduced(interpreter, reference):
    """Every path of a golden tree, snippet after snippet."""

    async def descend(tree: dict, tag: str, state) -> int:
        node, count = tree[tag], 0
        if node["action"]:
            execution = await interpreter.run(state, node["action_input"])
            assert f"<output>\n{execution.observation}\n</output>" in node["text"], tag
            state, count = execution.state, 1
        children = [child for child in tree if child.rpartition(".")[0] == tag]
        return count + sum(await asyncio.gather(*(descend(tree, child, state) for child in children)))

    with gzip.open(reference / "golden" / "sbs_1_5.trees.jsonl.gz", "rt") as file:
        trees = [json.loads(line)["react"] for _, line in zip(range(3), file, strict=False)]
    for tree in trees:
        tree.pop("solutions", None)
        assert await descend(tree, "0", None) > 5


async def test_siblings_and_questions_do_not_see_each_other(interpreter):
    base = (await interpreter.run(None, "import os\nx = [1]")).state
    first, second = await asyncio.gather(
        interpreter.run(base, "x.append(2); import sympy; sympy.zeta = None; x"),
        interpreter.run(base, "x.append(3); import sympy; print(x, sympy.zeta(2))"),
    )
    assert (first.observation, second.observation) == ("[1, 2]", "[1, 3] pi**2/6")
    assert (await interpreter.run(first.state, "x")).observation == "[1, 2]"
    assert (await interpreter.run(base, "x")).observation == "[1]"
    assert (await interpreter.run(None, "x")).observation == "NameError: name 'x' is not defined"


async def test_an_error_keeps_partial_effects_and_a_kill_does_not(interpreter):
    base = (await interpreter.run(None, "x = 1")).state
    failed = await interpreter.run(base, "x = 2\n1 / 0")
    assert failed.failed and (await interpreter.run(failed.state, "x")).observation == "2"
    killed = await interpreter.run(base, "x = 3\nimport os\nos._exit(0)")
    assert killed.failed and killed.state is base and "Error" in killed.observation
    assert (await interpreter.run(None, "import os\nos._exit(0)")).state is None


async def test_a_timeout_is_an_error_and_leaves_the_state_before():
    async with ForkInterpreter(timeout_seconds=2, preload=()) as brisk:
        base = (await brisk.run(None, "x = 1")).state
        late = await brisk.run(base, "x = 2\nwhile True: pass")
        assert late.observation.startswith("TimeoutError: ") and late.failed and late.state is base


async def test_children_continue_the_random_state_of_their_parent(interpreter):
    import random

    import numpy

    random.seed(5)
    numpy.random.seed(5)
    expected = [(random.random(), float(numpy.random.rand())) for _ in range(3)]
    state, drawn = None, []
    for code in ("import random, numpy\nrandom.seed(5); numpy.random.seed(5)", "", ""):
        execution = await interpreter.run(state, code + "\n(random.random(), float(numpy.random.rand()))")
        state = execution.state
        drawn.append(execution.observation)
    assert drawn == [str(pair) for pair in expected]


async def test_files_belong_to_the_state(interpreter):
    base = (await interpreter.run(None, "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('one')")).state
    changed = (await interpreter.run(base, "open('a/b/c', 'a').write(' two')")).state
    assert await say(interpreter, "import os\nos.listdir('.')") == "[]"
    assert (await interpreter.run(base, "open('a/b/c').read()")).observation == "one"
    assert (await interpreter.run(changed, "open('a/b/c').read()")).observation == "one two"


async def test_a_forgotten_file_is_flushed_and_closed(interpreter):
    steps = ["f = open('kept', 'w')\nf.write('a' * 12)", "f = open('kept')\nf.read()", "f = None\nopen('kept').read()"]
    assert await say(interpreter, *steps) == "a" * 12
    assert await say(interpreter, *steps[:2]) == "a" * 12


async def test_a_state_goes_on_after_a_detached_output_and_an_unreadable_file(interpreter):
    assert await say(interpreter, "import sys\nsys.stdout.detach()", "print(6)", "print(7)") == "7"
    made = "import os\nos.close(os.open('secret', os.O_CREAT | os.O_WRONLY, 0))\nopen('kept', 'w').close()"
    assert await say(interpreter, made, "os.listdir('.')") == "['kept']"


@needs_seccomp
async def test_siblings_share_no_descriptor_and_no_memory(interpreter):
    base = (await interpreter.run(None, "import os\nread, write = os.pipe()")).state
    assert "OSError" in (await interpreter.run(base, "os.write(write, b'x')")).observation
    assert "PermissionError" in await say(interpreter, "import mmap\nmmap.mmap(-1, 4096)")


async def test_evicted_states_are_rebuilt_unnoticed():
    async with ForkInterpreter(max_states=4, preload=()) as small:
        path = [(await small.run(None, "import random\nrandom.seed(1)\nx = [random.random()]")).state]
        for _ in range(9):
            path.append((await small.run(path[-1], "x.append(random.random())")).state)
        assert len(small._live) <= 4
        seen = await asyncio.gather(*(small.run(state, "(len(x), sum(x) == sum(x[:]), x[-1])") for state in path))
        import random

        random.seed(1)
        assert [run.observation for run in seen] == [str((i + 1, True, random.random())) for i in range(10)]
        assert len(small._live) <= 4


async def test_a_state_is_evicted_only_after_its_descendants():
    async with ForkInterpreter(max_states=4, preload=()) as small:
        base = (await small.run(None, "import os\nx = [0]")).state
        middle = (await small.run(base, "x.append(1)")).state
        leaves = [(await small.run(parent, f"x.append({i})")).state for i in range(2, 8) for parent in (middle, base)]
        assert base.node.alive() and middle.node.alive() and len(small._live) == 4
        assert [leaf.node.alive() for leaf in leaves] == [False] * 10 + [True] * 2
        assert (await small.run(leaves[0], "x")).observation == "[0, 1, 2]"
        assert base.node.alive() and middle.node.alive()


async def test_states_share_the_memory_of_the_preloaded_modules(interpreter):
    state = (await interpreter.run(None, "import numpy, sympy\nsympy.zeta(2)")).state
    rows = Path(f"/proc/{state.node.process.pid}/status").read_text().splitlines()
    kilobytes = {row.split()[0]: int(row.split()[1]) for row in rows if row.startswith(("RssAnon", "RssShmem"))}
    assert kilobytes["RssAnon:"] < 25_000  # with modules in ordinary memory: 55,000
    maps = Path(f"/proc/{state.node.process.pid}/maps").read_text()
    preloaded = [row.split()[1] for row in maps.splitlines() if "memfd:preloaded" in row]
    assert preloaded == ["rw-p"]  # private: what a state writes is its own


async def test_a_dead_process_is_rebuilt_unnoticed(interpreter):
    base = (await interpreter.run(None, "import os\nx = 6")).state
    child = (await interpreter.run(base, "x += 1")).state
    for state in (base, child):
        state.node.process.signal(signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert (await interpreter.run(child, "x")).observation == "7"
    interpreter._light.process.signal(signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert (await interpreter.run(child, "x")).observation == "7"


async def test_large_modules_come_when_a_path_imports_them(interpreter):
    start = await interpreter.run(None, "import random, sys\nx = [random.random()]\nprint('sympy' in sys.modules)")
    assert start.observation == "False"
    both = [
        (await interpreter.run(start.state, f"{load}x.append(random.random())\nx")) for load in ("", "import sympy\n")
    ]
    assert both[0].observation == both[1].observation  # the same random numbers
    solved = await interpreter.run(both[1].state, "print(sympy.sqrt(8), len(x), 'numpy' in sys.modules)")
    assert solved.observation == "2*sqrt(2) 2 True"
    twin, live = start.state.node.twin, len(interpreter._live)
    assert twin.alive() and not both[0].state.node.twin
    del start, both, solved
    gc.collect()
    assert not twin.alive() and len(interpreter._live) <= live - 4


@pytest.mark.parametrize(
    ("code", "light"),
    [
        ("print(1 + 2)", True),
        ("import math, random as r\nfrom fractions import Fraction; import re", True),
        ("from collections.abc import Sequence", True),
        ("import math, sympy", False),
        ("x = 1; import numpy as np", False),
        ("if True: from sympy import (solve,\n symbols)", False),
        ("import math\nprint(__import__('sympy'))", False),
        ("import importlib", False),
        ("import\tsympy", False),
        ("import math, \\\n sympy", False),
        ("exec('import sympy')", False),
        ("important = 'from here'", True),
    ],
)
def test_what_needs_large_modules_is_seen(code, light):
    assert is_light(code) is light


@pytest.mark.parametrize("slack", [1 << 20, 1 << 25])
def test_a_heap_with_free_space_is_shared_or_left_alone(slack):
    code = (
        "from mcts.interpreter.heap import library, shared_heap\n"
        "libc = library()\nlibc.mallopt(-3, 1 << 30), libc.mallopt(-1, 1 << 30)\n"
        f"libc.free(libc.malloc({slack}))\n"
        "with shared_heap(): x = [str(i) for i in range(1_000_000)]\n"
        "y = [bytes(i) for i in range(3000)]\nprint(len(''.join(x)), 'preloaded' in open('/proc/self/maps').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"5888890 {slack < 1 << 24}\n", done.stderr


async def test_states_are_released_with_their_handles(interpreter):
    base = (await interpreter.run(None, "import os\nx = 1")).state
    states = [await interpreter.run(base, f"y = {i}") for i in range(5)]
    count = len(interpreter._live)
    del states
    gc.collect()
    assert len(interpreter._live) == count - 5
    process = base.node.process
    del base
    gc.collect()
    assert not process.alive()


async def test_hundreds_in_flight(interpreter):
    base = (await interpreter.run(None, "import os\nx = 10")).state
    runs = await asyncio.gather(*(interpreter.run(base, f"x + {i}") for i in range(200)))
    assert [run.observation for run in runs] == [str(10 + i) for i in range(200)]


async def test_the_end_of_a_process_is_told_however_busy_its_parent():
    """The parent buries a child only when its end has been noted, or the observation would depend on the schedule."""
    async with ForkInterpreter(workers=8) as busy:
        base = (await busy.run(None, "import os\nx = 3")).state
        ends = await asyncio.gather(*(busy.run(base, "import os\nos._exit(x)") for _ in range(200)))
        assert {end.observation for end in ends} == {
            "ProcessError: the snippet ended its own process with exit status 3"
        }
        await busy.run(base, "x"), await busy.run(base, "x")  # each fork buries those of before
        dead = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # others end meanwhile
                dead += f") Z {base.node.process.pid} " in stat.read_text()
        assert dead <= 2


async def test_a_cancelled_snippet_leaves_nothing(interpreter):
    base = (await interpreter.run(None, "import os\nx = 1")).state
    task = asyncio.create_task(interpreter.run(base, "open('f', 'w').write('x')\nwhile True: pass"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await interpreter.run(base, "import os\n(x, os.listdir('.'))")).observation == "(1, [])"


def test_event_loops_come_and_go():
    interpreter = ForkInterpreter(preload=())
    state = asyncio.run(interpreter.run(None, "x = 4")).state
    assert asyncio.run(interpreter.run(state, "x")).observation == "4"
    server = interpreter._server.popen.pid
    assert processes_below(server)
    interpreter.close()
    assert not processes_below(server) and not Path(f"/proc/{server}").exists()
    assert asyncio.run(interpreter.run(state, "x")).observation == "4"  # by replay
    server = interpreter._server.popen
    del interpreter, state
    gc.collect()
    assert server.returncode is not None


def test_nothing_survives_a_killed_engine(tmp_path):
    script = (
        "import asyncio\nfrom mcts.interpreter import ForkInterpreter\n"
        "async def main():\n    interpreter = ForkInterpreter(preload=())\n"
        "    base = (await interpreter.run(None, 'x = 1')).state\n"
        "    print(interpreter._server.popen.pid, flush=True)\n"
        "    await interpreter.run(base, 'while True: pass')\nasyncio.run(main())\n"
    )
    for tools in (os.environ["PATH"], str(tmp_path)):  # the best sandbox of the machine, and none
        environment = {**os.environ, "PATH": tools, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment) as engine:
            server = int(engine.stdout.readline())
            time.sleep(0.3)
            below = [server, *processes_below(server)]
            engine.kill()
        for _ in range(100):
            alive = [pid for pid in below if state_of(pid) not in ("", "Z")]
            if not alive:
                break
            time.sleep(0.1)
        assert len(below) > 2 and not alive


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def test_required_sandbox_refuses_where_something_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InterpreterError, match=r"lacks .*bubblewrap"):
        async with ForkInterpreter(sandbox="required", preload=()):
            pass


async def test_a_missing_sandbox_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(RuntimeWarning, match=r"lacks .*bubblewrap") as caught:
        async with ForkInterpreter(preload=()) as bare:
            await bare.run(None, "1")
            bare.close()
            await bare.run(None, "1")
    assert len([warning for warning in caught if "lacks" in str(warning.message)]) == 1


async def test_off_still_isolates_states():
    async with ForkInterpreter(sandbox="off", preload=()) as off:
        base = (await off.run(None, "x = 1")).state
        assert (await off.run(base, "x = 2\nx")).observation == "2"
        assert (await off.run(base, "x")).observation == "1"


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="alphamath"):
        ForkInterpreter(profile="alphamat")


def run_command(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcts.interpreter", *options]
    return subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True)


def test_the_command_runs_snippets_in_one_state():
    text = "x = 5\nprint(x)\n---\nimport os\nx = 6\nos._exit(1)\n---\nx + 1\n---\n1 / 0\n"
    done = run_command(text, "--profile", "arbor", "--timeout", "30")
    assert done.stdout.splitlines() == [
        "5",
        "ProcessError: the snippet ended its own process with exit status 1",
        "6",
        "ZeroDivisionError: division by zero",
    ]
    assert done.returncode == 0


def test_the_command_refuses_what_it_does_not_know():
    assert run_command("", "--profile", "nobody").returncode == 2

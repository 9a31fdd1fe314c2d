"""A last child runs in its parent's process, and nobody can tell that it did."""

from __future__ import annotations

import asyncio

import pytest

from mcts.interpreter import ForkInterpreter

from .test_interpreter_hostile import needs_seccomp

pytestmark = pytest.mark.filterwarnings("ignore:the sandbox lacks")


@pytest.fixture(scope="module")
def interpreter():
    made = ForkInterpreter(timeout_seconds=20)
    yield made
    made.close()


def pid(state) -> int:
    return state.node.process.pid if state.node.process is not None else 0


async def last_child(interpreter: ForkInterpreter, state, code: str):
    state.announce(1)
    return await interpreter.run(state, code)


MANY_THREADS = "for _ in range(60):\n    t = threading.Thread(target=len, args=('',))\n    t.start()\n    t.join()"
LEFT_BEHIND = {  # what a snippet leaves and a fork would not have → what the next one sees
    "a thread": (
        "import threading\nx = 0\ndef spin():\n    global x\n    while True: x += 1\n"
        "threading.Thread(target=spin, daemon=True).start()",
        "import threading, time\ny = x\ntime.sleep(0.1)\n(threading.active_count(), x == y)",
        "(1, True)",
    ),
    "a timer": (
        "import signal\nx = []\nsignal.signal(signal.SIGALRM, lambda *_: x.append(1))\nsignal.setitimer(0, 0.01, 0.01)",
        "import time\nx.clear()\ntime.sleep(0.1)\nx",
        "[]",
    ),
    "a signal": (
        "import signal\nsignal.pthread_sigmask(0, [10])\nsignal.raise_signal(10)",
        "signal.sigpending()",
        "set()",
    ),
    "a fork hook": (
        "import os\nx = []\nos.register_at_fork(after_in_child=lambda: x.append(1))",
        "x",
        "[1]",
    ),
    "files, open and closed": (
        "import os\nf = open('a', 'w')\nf.write('abc')\nr, w = os.pipe()",
        "(open('a').read(), f.closed, os.listdir('.'), os.dup(0))",
        "('abc', True, ['a'], 3)",
    ),
    "many threads, ended": (
        f"import threading\n{MANY_THREADS}",
        f"{MANY_THREADS}\n1",
        "1",
    ),
}


@needs_seccomp
@pytest.mark.parametrize("left", LEFT_BEHIND)
async def test_what_a_last_child_finds_is_what_a_fork_finds(interpreter, left):
    before, code, expected = LEFT_BEHIND[left]
    base = (await interpreter.run(None, before)).state
    forked = await interpreter.run(base, code)
    assert forked.observation == expected
    assert (await last_child(interpreter, base, code)).observation == expected
    assert (await interpreter.run(base, code)).observation == expected  # of a state that may have been taken


async def test_a_chain_stays_in_one_process_and_ends_as_if_forked(interpreter):
    chain = [
        "import os\nx = [0]",
        "import random\nx.append(random.random())",
        "x.append(len(x))\n1 / 0",
        "print(x)",
        "del x",
        "x",
    ]
    forked = [await interpreter.run(None, chain[0])]
    in_place, pids = list(forked), {pid(forked[0].state)}
    for code in chain[1:]:
        forked.append(await interpreter.run(forked[-1].state, code))
    for code in chain[1:]:
        in_place.append(await last_child(interpreter, in_place[-1].state, code))
        pids.add(pid(in_place[-1].state))
        assert not pid(in_place[-2].state)
    assert [one.observation for one in in_place] == [one.observation for one in forked]
    assert len(pids) == 1
    assert (await interpreter.run(in_place[2].state, "x[0], len(x), x[2]")).observation == "(0, 3, 2)"  # by replay


async def test_the_last_of_announced_children_takes_the_state(interpreter):
    base = (await interpreter.run(None, "import os\nx = [1]")).state
    taken = pid(base)
    base.announce(5)
    runs = await asyncio.gather(*(interpreter.run(base, f"x.append({i})\nx") for i in range(5)))
    assert [run.observation for run in runs] == [f"[1, {i}]" for i in range(5)]
    assert pid(runs[-1].state) == taken and not pid(base)
    assert [(await interpreter.run(run.state, "x")).observation for run in runs] == [f"[1, {i}]" for i in range(5)]
    assert (await interpreter.run(base, "x")).observation == "[1]"


async def test_a_killed_last_child_leaves_the_state_before(interpreter):
    base = (await interpreter.run(None, "import os\nx = 1")).state
    killed = await last_child(interpreter, base, "x = 2\nimport os\nos._exit(3)")
    assert killed.observation.endswith("exit status 3") and killed.state is base and base.shared
    assert (await last_child(interpreter, base, "x")).observation == "1"
    assert pid(base)  # somebody else may go on from it too


async def test_after_a_long_path_the_state_is_kept(interpreter):
    base = (await interpreter.run(None, "import time\ntime.sleep(1.1)")).state
    assert (await last_child(interpreter, base, "3")).observation == "3" and pid(base)

"""A hostile snippet gives its caller a clear observation, and nobody else notices."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from mcts.interpreter import ForkInterpreter, State
from mcts.interpreter.sandbox import seccomp_program

from .hostile.snippets import HOSTILE

needs_seccomp = pytest.mark.skipif(not seccomp_program(), reason="pyseccomp or libseccomp is not installed")
CORPUS = [(category, name) for category, snippets in HOSTILE.items() for name in snippets]
PATIENT_SECONDS, BRISK_SECONDS = 30.0, 1.5  # for snippets that end by themselves, and for the others
HANG_SECONDS = 240.0
ENDLESS_AT_ONCE = 4  # on two cores each has half of one: they wait for their end, whatever they get
NEEDS_MOUNTS = {"fills the disk", "a million empty files"}  # not covered without namespaces
BYSTANDER = "import os, sympy\nprint(x + len(str(sympy.Integer(40) + 2)), os.listdir('.'))"


def processes_below(pid: int) -> list[int]:
    """Processes that descend from `pid` and are not zombies."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


async def look(interpreter: ForkInterpreter, state: State | None, code: str) -> str:
    """What a bystander observes. A machine under attack may be slow: one that ran out of time looks again."""
    seen = await interpreter.run(state, code)
    return (await interpreter.run(state, code) if "TimeoutError" in seen.observation else seen).observation


async def attack(interpreter: ForkInterpreter, base: State, category: str, name: str) -> str:
    """What went wrong with one snippet of the corpus, "" if nothing did."""
    expected, code = HOSTILE[category][name]
    async with asyncio.timeout(HANG_SECONDS):
        own = (await interpreter.run(base, "")).state
        own.announce(1)
        execution, in_place = await asyncio.gather(interpreter.run(base, code), interpreter.run(own, code))
        seen = await look(interpreter, base, BYSTANDER), await look(interpreter, None, "x = 0\n" + BYSTANDER)
        for left in (execution.state, in_place.state):
            left.announce(1)
            await interpreter.run(left, "1")  # whatever it left behind can at least not hang the search
    wrong = []
    for one in (execution, in_place):
        if not re.search(expected, one.observation, re.DOTALL):
            wrong.append(f"observation {one.observation[:200]!r}")
        if len(one.observation) > 10_100:
            wrong.append("an observation without bounds")
    if in_place.state is own and "a snippet may have" not in in_place.observation:
        back = await look(interpreter, own, BYSTANDER)
        if back != "44 []":
            wrong.append(f"the state that it ran in came back as {back[:200]!r}")
    if seen != ("44 []", "2 []"):
        wrong.append(f"bystanders saw {seen[0][:200]!r} and {seen[1][:200]!r}")
    return f"{category}, {name}: {'; '.join(wrong)}" if wrong else ""


async def assault(corpus: list[tuple[str, str]], timeout_seconds: float, workers: int | None = None) -> None:
    """All of `corpus` at once against one interpreter, of which nothing may be left in the end."""
    interpreter = ForkInterpreter(timeout_seconds=timeout_seconds, memory_bytes=1 << 29, workers=workers)
    async with interpreter:
        base = (await interpreter.run(None, "x = 42")).state
        wrong = await asyncio.gather(*(attack(interpreter, base, *entry) for entry in corpus))
        assert not any(wrong), "\n".join(filter(None, wrong))
        await interpreter.run(base, "x")
        server, folder = interpreter._server.popen.pid, Path(interpreter._server.folder)
        most = 5 + interpreter.workers  # hosts of states that are values
        for _ in range(100):  # the killed take a moment to go
            if len(alive := processes_below(server)) <= most:
                break
            await asyncio.sleep(0.1)
        assert len(alive) <= most, f"{len(alive)} processes are alive, for one state"
    assert not processes_below(server)
    assert not (folder / "0").exists()  # where its first writable folder is, or would be outside its namespace


@needs_seccomp
@pytest.mark.parametrize("tool", ["bwrap", "unshare", None])
@pytest.mark.filterwarnings("ignore:the sandbox lacks")
async def test_hostile_snippets_are_contained(tool: str | None, tmp_path, monkeypatch):
    if tool is not None:
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed")
        (tmp_path / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    corpus = CORPUS if tool == "bwrap" else CORPUS[:: 6 if tool else 9]
    corpus = [entry for entry in corpus if tool or entry[1] not in NEEDS_MOUNTS]
    endless = [entry for entry in corpus if "TimeoutError" in HOSTILE[entry[0]][entry[1]][0]]
    await assault([entry for entry in corpus if entry not in endless], PATIENT_SECONDS)
    await assault(endless, BRISK_SECONDS, ENDLESS_AT_ONCE)

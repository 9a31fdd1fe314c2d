"""One of each kind of thing, added from outside the packages, and run end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.registry import Registry
from mcts.search.methods import METHODS, Method
from mcts.search.offline import offline_inference
from mcts.search.rules import backup
from mcts.search.search import Search
from mcts.trees.record import from_record
from tests.conftest import write_jsonl
from tests.mcts.conftest import RandomModel, ask, make_solver

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "models" / "tiny" / "weights"


async def best_first(search: Search) -> None:
    """Expands the most valued open leaf, `iterations` times, and backs every new value up."""
    leaves, expander = [search.root], search.expander
    for _ in range(expander.config.iterations):
        if not leaves:
            break
        leaf = leaves.pop(max(range(len(leaves)), key=lambda at: leaves[at].value))
        await expander.expand(leaf, expander.config.n_generate_sample)
        await expander.evaluate([child for child in leaf.children if not child.failed])
        for child in leaf.children:
            backup(child, child.value if not child.failed else -1.0)
        leaves += [child for child in leaf.children if not child.terminal]
        expander.counts.simulations += 1
    search.solutions = offline_inference(search.root, beam_width=3)


BEST_FIRST = Method(best_first, "best first", statistics=True)


@pytest.fixture
def outside() -> Iterator[None]:
    """The method, as a package that is imported would add it."""
    METHODS.add("best_first", BEST_FIRST)
    yield
    del METHODS._entries["best_first"]


@pytest.mark.usefixtures("outside")
async def test_a_search_method_from_outside_saves_statistics_that_decisions_read() -> None:
    keys = {"mode": "best_first", "iterations": 12, "n_generate_sample": 3, "max_depth": 4}
    async with ForkInterpreter(preload=()) as interpreter:
        record = await make_solver(RandomModel(3), interpreter, **keys).solve(ask(answer="7"))
    root = from_record(json.loads(json.dumps(record["react"])))
    assert root.visit_count == sum(1 for node in root.walk() if node.parent) and record["meta"]["simulations"] > 1
    assert all("q_value" in node and "prior" in node for node in record["react"].values())
    picked = offline_inference(root, beam_width=3)
    assert record["prediction"]["tag"] == picked[0].tag


def package(folder: Path, groups: dict[str, str], source: str) -> dict[str, str]:
    """An installed distribution `outside` with entry points; the environment in which it is found."""
    (folder / "outside.py").write_text(source, encoding="utf-8")
    information = folder / "outside-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"[{group}]\n{line}\n" for group, line in groups.items())
    (information / "entry_points.txt").write_text(points, encoding="utf-8")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_of_another_package_is_searched_decided_and_learned_from_by_the_commands(tmp_path: Path) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    start, end = source.index("async def best_first"), source.index("@pytest.fixture")
    imports = "\n".join(line for line in source.splitlines() if line.startswith("from mcts"))
    environment = package(
        tmp_path,
        {"arbor.methods": "best_first = outside:BEST_FIRST"},
        f"from __future__ import annotations\n{imports}\n\n{source[start:end]}",
    )
    questions = write_jsonl(
        tmp_path / "questions.jsonl",
        [
            json.loads(line)
            for line in (ROOT / "models/tiny/data/dev.jsonl").read_text(encoding="utf-8").splitlines()[:6]
        ],
    )
    keys = ["--set", "mode=best_first", "--set", "iterations=25", "--set", "seed=1"]
    config = ROOT / "configs" / "tiny" / "mcts.yaml"
    trees = tmp_path / "trees.jsonl"
    solve = ["-m", "arbor", "solve", "--config", config, *keys, "--questions", questions, "--output", trees]
    run(environment, *solve, cwd=tmp_path)
    rows = [json.loads(line) for line in trees.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 6 and all("q_value" in row["react"]["0.0"] for row in rows)
    decide = ["-m", "arbor", "decide", "--config", ROOT / "configs" / "offline_inference.yaml", "--trees", trees]
    assert "of 6 right" in run(environment, *decide, cwd=tmp_path)
    run(environment, "-m", "arbor", "grade-trees", trees, cwd=tmp_path)
    output = tmp_path / "examples.jsonl"
    examples = ["-m", "arbor", "examples", "--config", config, *keys, "--trees", trees, "--output", output]
    run(environment, *examples, "--rule", "pairs=2", cwd=tmp_path)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert any(line.get("targets") for line in lines)


OUTSIDE = '''
import click

from eval.data.datasets import DataSet
from eval.report.columns import Column
from mcts.markup.registry import MarkupEntry
from mcts.markup.step import Step
from mcts.model import Expansion, Sample
from models.engines.registry import register_engine


class Lines:
    """A line of code, its output after an arrow, and so on, until a line with the answer."""

    step_delim, stop = "\\n", ("\\n",)

    def prompt(self, question):
        return f"Q: {question}\\n"

    def read(self, text, before="", finish="stop", stop=""):
        kind, _, rest = text.partition(" ")
        return Step(text, code=rest) if kind == "run" else Step(text, final_answer=rest if kind == "say" else "")

    def observed(self, step, observation):
        return f"{step.text} -> {observation}"

    def written(self, text):
        return len(text.partition(" -> ")[0])


LINES = MarkupEntry(lambda frame: Lines())


class Parrot:
    """Multiplies by code and repeats what the code printed."""

    def encode(self, text):
        return tuple(map(ord, text))

    async def sample(self, context, n, params):
        prompt = "".join(map(chr, context.all_token_ids()))
        _, ran, output = prompt.rpartition(" -> ")
        text = f"say {output.strip()}" if ran else "run print(" + prompt[3:].partition("?")[0] + ")"
        return Expansion(0.5, (Sample(self.encode(text + "\\n"), text, -1.0, "stop", "\\n"),) * n)

    async def evaluate(self, context):
        return 0.5


PARROT = register_engine("parrot", model="none")(lambda config, need_value: Parrot())
SUMS = DataSet("sums.jsonl", lambda row: (row["sum"], [str(row["is"])]))
SNIPPETS = Column("snippets", lambda record: (record.get("meta") or {}).get("snippets"))


@click.command()
def hello():
    """Greets."""
    click.echo("hello from outside")
'''


def test_markup_engine_data_set_column_and_subcommand_of_another_package_work_together(tmp_path: Path) -> None:
    environment = package(
        tmp_path,
        {
            "arbor.markups": "lines = outside:LINES",
            "arbor.engines": "parrot = outside:PARROT",
            "arbor.datasets": "sums = outside:SUMS",
            "arbor.columns": "snippets_run = outside:SNIPPETS",
            "arbor.commands": "hello = outside:hello",
        },
        OUTSIDE,
    )
    assert "hello from outside" in run(environment, "-m", "arbor", "hello", cwd=tmp_path)
    questions = write_jsonl(
        tmp_path / "q.jsonl", [{"question": "6 * 7?", "answer": 42}, {"question": "2 * 3?", "answer": 7}]
    )
    config = tmp_path / "outside.yaml"
    config.write_text(
        'mode: sbs\nengine: parrot\nprompt_wrap: lines\nresult_unwrap: lines\nstep_delim: "\\n"\nseed: 1\n'
        "n_generate_sample: 2\nremove_duplicate: true\nneed_value_func: true\n",
        encoding="utf-8",
    )
    solve = ["-m", "arbor", "solve", "--config", config, "--questions", questions]
    trees = Path(run(environment, *solve, cwd=tmp_path).split()[-1])
    rows = [json.loads(line) for line in (tmp_path / trees).read_text(encoding="utf-8").splitlines()]
    assert [row["prediction"]["final_answer"] for row in rows] == ["42", "6"]
    assert rows[0]["react"]["0.0"]["text"] == "run print(6 * 7) -> 42" and rows[0]["react"]["0.0"]["value"] == 0.5
    report = json.loads(run(environment, "-m", "arbor", "evaluate", trees, "--json", cwd=tmp_path))
    assert '"snippets_run": 1.0' in json.dumps(report)
    write_jsonl(tmp_path / "sums.jsonl", [{"sum": "1 + 1?", "is": 2}])
    code = "from eval.data.datasets import load; [one] = load('sums', '.'); print(one.question, *one.answers)"
    assert run(environment, "-c", code, cwd=tmp_path).split() == ["1", "+", "1?", "2"]


def test_an_unknown_name_names_its_nearest_neighbour_and_the_known_ones() -> None:
    registry: Registry[str] = Registry("colour", "arbor.no_such_group", {"broken": "no.such.module:x"})
    registry.add("green", "g")
    assert registry["green"] == "g" and list(registry) == ["broken", "green"] and "blue" not in registry
    with pytest.raises(UserError, match=r"unknown colour 'gren'; did you mean 'green'\? \(known: broken, green\)"):
        registry["gren"]
    with pytest.raises(UserError, match="cannot be imported"):
        registry["broken"]

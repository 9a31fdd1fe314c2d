"""The Python interface as a stranger meets it: from the README, from a notebook, from another folder."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import arbor

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "A garden is 7 m longer than it is wide. Its area is 744 square metres. How wide is it?"


@pytest.fixture(scope="module")
def model() -> Iterator[arbor.Model]:
    with arbor.load_model() as loaded:
        yield loaded


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_first_block_of_the_readme_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks and "import arbor" in blocks[0] and "StepBeam" in blocks[0]
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        done = python(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{block}", tmp_path)
        assert done.returncode == 0, done.stderr
    results = arbor.load(tmp_path / "trees.jsonl")
    assert results[0].question == QUESTION


@pytest.mark.parametrize(
    "method", [arbor.Greedy(), arbor.Sampling(3), arbor.StepBeam(beam=2, samples=3), arbor.MCTS(simulations=8)]
)
def test_every_method_solves_saves_and_loads(model: arbor.Model, method: arbor.Greedy, tmp_path: Path) -> None:
    with arbor.Solver(model, method) as solver:
        result = solver.solve(QUESTION, answer="24")
    arbor.save(tmp_path / "trees.jsonl", [result])
    (loaded,) = arbor.load(tmp_path / "trees.jsonl")
    for one in (result, loaded):
        assert one.question == QUESTION and one.index == 0
        assert (one.answer is None) == (one.no_answer is not None)
        assert one.correct is (one.answer is not None and arbor.grade("24", one.answer).equal)
        assert one.cost.tokens_computed > 0 and one.cost.samples > 0
        tags = [node.tag for node in one.tree.walk()]
        assert tags[0] == "0" and tags == sorted(tags, key=lambda tag: (tag.count("."), tag))
        if one.leaf is not None:
            assert one.leaf.final_answer == one.answer
    assert loaded.record == result.record


def test_the_same_seed_gives_the_same_tree_alone_and_in_a_stream(model: arbor.Model) -> None:
    questions = [QUESTION, ("What is 3 + 4?", "7"), {"question": QUESTION, "answer": "24"}]
    with arbor.Solver(model, arbor.StepBeam(beam=2, samples=3), seed=5) as solver:
        alone = solver.solve(QUESTION, answer="24", index=2)
        stream = {result.index: result for result in solver.solve_all(iter(questions), in_flight=2)}
    assert sorted(stream) == [0, 1, 2]
    assert stream[2].record["react"] == alone.record["react"] and stream[0].record["react"] != alone.record["react"]
    assert stream[0].correct is None and stream[2].correct is alone.correct


def test_it_works_where_an_event_loop_already_runs(model: arbor.Model) -> None:
    """A notebook cell is code inside a running loop; both ways of asking have to work there."""

    async def cell() -> tuple[str | None, list[int]]:
        with arbor.Solver(model, arbor.Greedy()) as solver:
            blocking = solver.solve(QUESTION)
            awaited = await solver.solve_async(QUESTION)
            assert awaited.record["react"] == blocking.record["react"]
            return blocking.answer, [result.index async for result in solver.solve_all_async([QUESTION] * 3)]

    answer, order = asyncio.run(cell())
    assert answer is not None and sorted(order) == [0, 1, 2]


def test_a_finished_tree_is_decided_again(model: arbor.Model) -> None:
    with arbor.Solver(model, arbor.MCTS(simulations=12)) as solver:
        result = solver.solve(QUESTION)
    picked = {strategy: arbor.decide(result, strategy=strategy, beam=3) for strategy in ("q_value", "value", "puct")}
    assert picked["q_value"] is not None and picked["q_value"].final_answer == result.answer
    assert arbor.decide(result.tree, samples=1, beam=1) is None or arbor.decide(result.tree, beam=1) is not None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: arbor.Solver(model, arbor.Greedy(), max_dept=3), ["max_dept", "max_depth"]),
        (lambda model: arbor.Solver(model, arbor.Method("mtcs")), ["mtcs", "mcts"]),
        (lambda model: arbor.Solver(model, arbor.StepBeam(beam=0)), ["step_beam_width", "0"]),
        (lambda model: arbor.load_model("no/such/folder"), ["no/such/folder"]),
        (lambda model: arbor.load_model(engine="vlm"), ["vlm", "vllm"]),
        (lambda model: arbor.load("no_such_file.jsonl"), ["no_such_file.jsonl", "no such file"]),
        (lambda model: next(arbor.Solver(model, arbor.Greedy()).solve_all([5])), ["question 0", "int"]),
        (lambda model: arbor.Solver(model, arbor.Greedy()).solve("  "), ['"question"']),
        (lambda model: arbor.Solver(model, arbor.Greedy()).solve("1 + 1?", answer={"a": 1}), ['"answer"']),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_be_right(model: arbor.Model, call, words: list[str]) -> None:
    with pytest.raises(arbor.UserError) as caught:
        call(model)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), str(caught.value)


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "sympy", "scipy", "numpy", "pydantic", "click")
    done = python(f"import sys, arbor; print([name for name in {heavy} if name in sys.modules])", ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_described_and_the_pages_made_of_it_are_up_to_date() -> None:
    assert (ROOT / "arbor" / "py.typed").exists()
    for name in arbor.__all__:
        assert isinstance(getattr(arbor, name), str) or (getattr(arbor, name).__doc__ or "").strip(), name
    done = subprocess.run([sys.executable, "scripts/make_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

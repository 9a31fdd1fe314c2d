"""SmolLM2-135M-Instruct on real questions through both local engines, and with the shipped adapter over it.

`make test-real` prepares the models.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arbor.assembly import load_markup, open_solver
from eval.data.datasets import load
from eval.grading.grader import Verdict, grade
from mcts.model import Context, LanguageModel, Sampling
from mcts.question import Question
from mcts.search.driver import solve_all
from models.engines.config import RunConfig, load_config, make_config
from models.engines.transformers.engine import TransformersModel
from tests.conftest import write_jsonl

MODEL = Path(os.environ.get("ARBOR_REAL_MODEL", "runs/real"))
if not (MODEL / "transformers" / "config.json").exists():
    pytest.skip(f"no model in {MODEL}: `make test-real` prepares it", allow_module_level=True)
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install -r requirements-llama.txt")

from models.engines.llama_cpp.engine import LlamaCppModel  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
COMMON: dict[str, Any] = {
    "model_dir": str(MODEL / "transformers"), "prompt_wrap": "pal", "result_unwrap": "pal", "num_few_shot": 4,
    "seed": 0, "max_tokens": 48, "max_depth": 2, "code_timeout": 60.0, "need_value_func": True,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "greedy": {"mode": "react", "temperature": 0.0},
    "maj5": {"mode": "react", "temperature": 0.7, "n_runs": 5},
    "sbs": {"mode": "sbs", "temperature": 0.7, "n_generate_sample": 5, "step_beam_width": 3},
    "mcts": {"mode": "mcts", "temperature": 0.7, "n_generate_sample": 3, "iterations": 4},
}


def configuration(method: str, **changes: Any) -> RunConfig:
    return make_config(COMMON | METHODS[method] | changes, "a test")


@pytest.fixture(scope="module")
def questions(reference: Path) -> list[Question]:
    """Two each of MAWPS, SVAMP and GSM8K."""
    found = [item for name in ("mawps", "svamp", "gsm8k") for item in load(name, reference / "data")[:2]]
    return [Question(index, {"question": one.question}, "") for index, one in enumerate(found)]


@pytest.fixture(scope="module")
def transformers() -> TransformersModel:
    return TransformersModel.load(MODEL / "transformers")


@pytest.fixture(scope="module")
def llama() -> LlamaCppModel:
    return LlamaCppModel.load(MODEL / "gguf" / "F32", engine_args={"kv_type": "f32", "kv_tokens": 16384})


async def search(config: RunConfig, model: LanguageModel, questions: list[Question]) -> list[dict[str, Any]]:
    async with open_solver(config, model, {}, 0) as solver:
        found = {one.index: record async for one, record in solve_all(solver, questions, len(questions))}
    return [found[index] for index in sorted(found)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ["transformers", "llama"])
async def test_every_method_searches_real_questions(
    method: str, engine: str, questions: list[Question], request: pytest.FixtureRequest
) -> None:
    """Each gives trees whose prompts were computed once a run."""
    model = request.getfixturevalue(engine)
    before = model.totals.tokens_computed
    records = await search(configuration(method), model, questions)
    assert all(len(record["react"]) > 1 for record in records)
    metas = [record["meta"] for record in records]
    assert sum(meta["tokens_computed"] for meta in metas) == model.totals.tokens_computed - before
    few_shot = load_markup(configuration(method)).prompt("")
    shared = len(model.encode_prompt(few_shot))
    assert sum(meta["tokens_reused"] for meta in metas) > 0.9 * shared * (len(records) - 1)


async def test_values_and_greedy_texts_of_the_engines_agree(
    transformers: TransformersModel, llama: LlamaCppModel, questions: list[Question]
) -> None:
    markup = load_markup(configuration("greedy"))
    for question in questions[::2]:
        ids = transformers.encode_prompt(markup.prompt(question.text))
        assert ids == llama.encode_prompt(markup.prompt(question.text))
        params = Sampling(max_tokens=32, stop=markup.stop)
        own, other = await asyncio.gather(
            transformers.sample(Context(None, ids), 1, params), llama.sample(Context(None, ids), 1, params)
        )
        assert own.value == pytest.approx(other.value, abs=1e-3)
        assert own.samples[0].text == other.samples[0].text
        assert own.samples[0].logprob == pytest.approx(other.samples[0].logprob, abs=1e-2)


async def test_the_same_trees_alone_and_together(transformers: TransformersModel, questions: list[Question]) -> None:
    config = configuration("sbs")
    together = await search(config, transformers, questions[:3])
    alone = [(await search(config, transformers, [one]))[0] for one in questions[:3]]
    for one, other in zip(together, alone, strict=True):
        assert one["react"].keys() == other["react"].keys()
        for tag, node in one["react"].items():
            if tag != "solutions":  # node by node: the difference of whole trees takes minutes to print
                assert node == other["react"][tag], tag


async def test_sixty_four_questions_in_flight(transformers: TransformersModel, reference: Path) -> None:
    """Peak memory grows with what the questions have of their own, not with the 1,300 tokens of their prompt."""
    items = load("svamp", reference / "data")[:64]
    asked = [Question(index, {"question": item.question}, "") for index, item in enumerate(items)]
    config = configuration("greedy", max_tokens=8, num_few_shot=8, max_depth=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    records = await search(config, transformers, asked)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20  # GiB
    prompt = sum(record["meta"]["prompt_tokens"] for record in records)
    computed = sum(record["meta"]["tokens_computed"] for record in records)
    assert len(records) == 64
    assert computed < 0.2 * prompt
    assert grown < 2


def test_a_killed_run_goes_on_and_ends_with_the_same_trees(tmp_path: Path, questions: list[Question]) -> None:
    asked = write_jsonl(tmp_path / "questions.jsonl", [{"question": one.text} for one in questions[:3]])
    config = tmp_path / "config.yaml"
    keys = COMMON | METHODS["sbs"] | {"model_dir": str(MODEL.resolve() / "transformers"), "batch_size": 1}
    config.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()), encoding="utf-8")

    def command(output: Path) -> list[str]:
        options = ["--custom_cfg", str(config), "--qaf", str(asked), "--output", str(output)]
        return [sys.executable, str(ROOT / "solver_demo.py"), *options]

    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    subprocess.run(command(whole), check=True, cwd=ROOT, capture_output=True)
    process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (killed.exists() and killed.read_bytes().count(b"\n") >= 1):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(killed), check=True, cwd=ROOT, capture_output=True)
    rows = [[json.loads(line)["react"] for line in path.open(encoding="utf-8")] for path in (whole, killed)]
    assert rows[0] == rows[1] and len(rows[0]) == 3


@pytest.mark.parametrize(("name", "least"), [("greedy", 12), ("sbs_1_5", 14)])
async def test_the_shipped_adapter_solves_word_problems_by_programs(name: str, least: int) -> None:
    """The forty questions that were written for it."""
    config = load_config(ROOT / f"configs/smollm2/{name}.yaml", [f"model_dir={MODEL / 'tuned'}"])
    model = TransformersModel.load(MODEL / "tuned", need_value=config.need_value_func)
    rows = [json.loads(line) for line in (ROOT / "models/smollm2/questions.jsonl").open(encoding="utf-8")]
    trees = await search(config, model, [Question(index, row, row["answer"]) for index, row in enumerate(rows)])
    pairs = [(row["answer"], tree["prediction"]["final_answer"]) for row, tree in zip(rows, trees, strict=True)]
    right = sum(grade(gold, prediction).verdict is Verdict.EQUAL for gold, prediction in pairs)
    assert right >= least, right

"""Questions a minute of a real model on each engine, beside the published schedule over `transformers.generate`.

    python -m scripts.bench.real_model --data_dir DATA [--model runs/real] [--questions 32] [--method sbs]
        [--prompt pal] [--engines transformers llama_cpp/Q8_0 ...] [--json FILE]

--model is the folder that `make test-real` prepares (SmolLM2-135M-Instruct); DATA holds svamp/test.jsonl as ToRA ships
it. Few-shot prompts, step beam (3,5) or MCTS of 16 simulations, the same keys everywhere. An engine has a process of
its own and counts from its first question to its last, loading left out. The published schedule computes every prompt
of every call again, so it gets `--rival-questions` of them, in lock step; at this size the model's arithmetic sets its
pace, which more questions at once do not change. vLLM runs under `--vllm-python` (`make test-vllm` makes one).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts.bench import common
from scripts.bench.common import Claim

METHODS: dict[str, dict[str, Any]] = {
    "sbs": {"mode": "sbs", "n_generate_sample": 5, "step_beam_width": 3},
    "mcts": {"mode": "mcts", "n_generate_sample": 5, "iterations": 16, "update_leaf_value": False, "descend": False},
}
RIVAL = "published"
VLLM_ARGS = {
    "distributed_executor_backend": "uni",
    "gpu_memory_utilization": 0.3,
    "enforce_eager": True,
    "block_size": 32,
}
VLLM_ENV = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}


def configuration(options: argparse.Namespace, engine: str) -> Any:
    from models.engines.config import make_config

    kind, _, quantised = engine.partition("/")
    folder = options.model / ("gguf" if kind == "llama_cpp" else "transformers") / quantised
    keys: dict[str, Any] = {
        "engine": kind, "model_dir": str(folder), "prompt_wrap": options.prompt, "result_unwrap": options.prompt,
        "num_few_shot": options.few_shot, "seed": 0, "temperature": 0.7, "max_tokens": 96, "max_depth": 4,
        "need_value_func": True, "batch_size": options.questions, "max_total_time": 1e5, "code_timeout": 60.0,
        "engine_args": {"llama_cpp": {"kv_tokens": 131072}, "vllm": VLLM_ARGS}.get(kind, {}),
    }  # fmt: skip
    return make_config(keys | METHODS[options.method], "the benchmark")


def load_questions(options: argparse.Namespace, count: int) -> list[Any]:
    from eval.data.datasets import load
    from mcts.question import Question

    return [Question(one.index, {"question": one.question}, "") for one in load("svamp", options.data_dir)[:count]]


async def search(options: argparse.Namespace, engine: str) -> dict[str, float]:
    """What `options.questions` questions took."""
    from arbor.assembly import load_model, open_solver
    from mcts.search.driver import solve_all

    config, questions = configuration(options, engine), load_questions(options, options.questions)
    model = load_model(config)
    async with open_solver(config, model, {}, 0) as solver:
        started = time.perf_counter()
        metas = [record["meta"] async for _, record in solve_all(solver, questions, len(questions))]
        seconds = time.perf_counter() - started
    counts = {key: float(sum(meta[key] for meta in metas)) for key in ("tokens_generated", "tokens_computed")}
    return {"questions": len(questions), "seconds": seconds, **counts}


def lock_step(options: argparse.Namespace) -> dict[str, float]:
    """What `options.rival_questions` questions took by the published schedule."""
    from arbor.assembly import load_markup
    from scripts.bench.published import LockStep, Stock, pool

    config = configuration(options, "transformers")
    markup = load_markup(config)
    texts = [question.item["question"] for question in load_questions(options, options.rival_questions)]
    model = Stock(config, markup.stop)
    rival = LockStep(model, markup, texts, pool()[1])
    if options.method == "sbs":
        rival.step_beam(config.step_beam_width, config.n_generate_sample, config.max_depth)
    else:
        rival.monte_carlo(config.iterations, config.n_generate_sample, config.c_puct)
    counts = {"tokens_generated": float(model.generated), "tokens_computed": float(model.computed)}
    return {"questions": len(texts), "seconds": rival.seconds, **counts}


def run(options: argparse.Namespace, engine: str) -> dict[str, float]:
    """One engine in a process of its own. Raises CalledProcessError."""
    python = options.vllm_python if engine == "vllm" else sys.executable
    command = [str(python), "-m", "scripts.bench.real_model", *sys.argv[1:], "--worker", engine]
    environment = os.environ | ({"OMP_NUM_THREADS": "2"} | VLLM_ENV if engine == "vllm" else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"rate": 60 * found["questions"] / found["seconds"]}


def measure(options: argparse.Namespace) -> list[Claim]:
    found = {}
    for engine in options.engines:
        found[engine] = run(options, engine)
        print(engine, json.dumps({key: round(value, 2) for key, value in found[engine].items()}), flush=True)
    what = f"{options.method}, few-shot {options.prompt}, questions a minute"
    claims, own = [], found.get("transformers")
    if own and RIVAL in found:
        claims.append(common.at_least(f"{what}: transformers beside {RIVAL}", own["rate"], found[RIVAL]["rate"], 5))
    for engine in found:
        if own and engine.startswith("llama_cpp"):
            rate = found[engine]["rate"]
            claims.append(common.at_least(f"{what}: {engine} beside transformers", rate, own["rate"], 2))
        elif own and engine == "vllm":
            claims.append(common.beside(f"{what}: vllm beside transformers", found[engine]["rate"], own["rate"]))
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/real"))
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--rival-questions", type=int, default=2)
    parser.add_argument("--few-shot", type=int, default=8)
    parser.add_argument("--prompt", default="pal")
    parser.add_argument("--method", choices=list(METHODS), default="sbs")
    kinds = ["transformers", "llama_cpp/Q8_0", "llama_cpp/Q4_1", RIVAL]
    parser.add_argument("--engines", nargs="+", default=kinds, metavar="ENGINE", help=f"of {', '.join(kinds)}, vllm")
    parser.add_argument("--vllm-python", type=Path, default=Path(".venv-vllm/bin/python"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.model / "transformers" / "config.json").exists():
        parser.error(f"--model {options.model}: no transformers/config.json in it; `make test-real` prepares runs/real")
    if not (options.data_dir / "svamp" / "test.jsonl").exists():
        parser.error(f"--data_dir {options.data_dir}: no svamp/test.jsonl in it")
    if options.worker:
        work = lock_step(options) if options.worker == RIVAL else asyncio.run(search(options, options.worker))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(work | {"peak_mib": peak}))
        return
    print(common.machine(), flush=True)
    claims = measure(options)
    print(common.table(claims))
    if options.json is not None:
        common.write(options.json, [vars(one) for one in claims])


if __name__ == "__main__":
    main()

"""Questions a minute of a real model on each engine, beside the transformers engine.

    python -m scripts.bench.real_model --data_dir DATA [--model runs/real] [--questions 32] [--method sbs]
        [--prompt pal] [--engines transformers llama_cpp/Q8_0 ...] [--json FILE]

--model is the folder that `make test-real` prepares (SmolLM2-135M-Instruct); DATA holds svamp/test.jsonl as ToRA ships
it. Few-shot prompts, step beam (3,5) or MCTS of 16 simulations, the same keys everywhere. An engine has a process of
its own and counts from its first question to its last, loading left out. vLLM runs under `--vllm-python` (`make
test-vllm` makes one). The published schedule on the same model stands beside it in end_to_end.py.
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
from scripts.bench.engines import CPU, SMALL

METHODS: dict[str, dict[str, Any]] = {
    "sbs": {"mode": "sbs", "n_generate_sample": 5, "step_beam_width": 3},
    "mcts": {"mode": "mcts", "n_generate_sample": 5, "iterations": 16, "update_leaf_value": False, "descend": False},
}
BARS = {"llama_cpp": 2.0}  # of how many times the rate of the transformers engine


def configuration(options: argparse.Namespace, engine: str) -> Any:
    from models.engines.config import make_config

    kind, _, quantised = engine.partition("/")
    folder = options.model / ("gguf" if kind == "llama_cpp" else "transformers") / quantised
    keys: dict[str, Any] = {
        "engine": kind, "model_dir": str(folder), "prompt_wrap": options.prompt, "result_unwrap": options.prompt,
        "num_few_shot": options.few_shot, "seed": 0, "temperature": 0.7, "max_tokens": 96, "max_depth": 4,
        "need_value_func": True, "batch_size": options.questions, "max_total_time": 1e5, "code_timeout": 60.0,
        "engine_args": {"llama_cpp": {"kv_tokens": 131072}, "vllm": CPU}.get(kind, {}),
    }  # fmt: skip
    return make_config(keys | METHODS[options.method], "the benchmark")


def load_questions(options: argparse.Namespace) -> list[Any]:
    from eval.data.datasets import load
    from mcts.question import Question

    items = load("svamp", options.data_dir)[: options.questions]
    return [Question(one.index, {"question": one.question}, "") for one in items]


async def search(options: argparse.Namespace, engine: str) -> dict[str, float]:
    """What `options.questions` questions took."""
    from arbor.assembly import load_model, open_solver
    from mcts.search.driver import solve_all

    config, questions = configuration(options, engine), load_questions(options)
    model = load_model(config)
    async with open_solver(config, model, {}, 0) as solver:
        started = time.perf_counter()
        metas = [record["meta"] async for _, record in solve_all(solver, questions, len(questions))]
        seconds = time.perf_counter() - started
    counts = {key: float(sum(meta[key] for meta in metas)) for key in ("tokens_generated", "tokens_computed")}
    return {"questions": len(questions), "seconds": seconds, **counts}


def run(options: argparse.Namespace, engine: str) -> dict[str, float]:
    """One engine in a process of its own. Raises CalledProcessError."""
    python = options.vllm_python if engine == "vllm" else sys.executable
    command = [str(python), "-m", "scripts.bench.real_model", *sys.argv[1:], "--worker", engine]
    own = {"OMP_NUM_THREADS": "2"} | SMALL | {"VLLM_CPU_KVCACHE_SPACE": "4"}
    environment = os.environ | (own if engine == "vllm" else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"rate": 60 * found["questions"] / found["seconds"]}


def measure(options: argparse.Namespace) -> list[Claim]:
    found = {}
    for engine in options.engines:
        found[engine] = run(options, engine)
        print(engine, json.dumps({key: round(value, 2) for key, value in found[engine].items()}), flush=True)
    what = f"{options.method}, few-shot {options.prompt}, questions a minute"
    claims: list[Claim] = []
    if (own := found.pop("transformers", None)) is None:
        return claims
    for engine, one in found.items():
        claim, bar = f"{what}: {engine} beside transformers", BARS.get(engine.partition("/")[0])
        pair = one["rate"], own["rate"]
        claims.append(common.beside(claim, *pair) if bar is None else common.at_least(claim, *pair, bar))
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/real"))
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--few-shot", type=int, default=8)
    parser.add_argument("--prompt", default="pal")
    parser.add_argument("--method", choices=list(METHODS), default="sbs")
    kinds = ["transformers", "llama_cpp/Q8_0", "llama_cpp/Q4_1"]
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
        work = asyncio.run(search(options, options.worker))
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

"""Every engine on the embedded model: value error, search throughput beside the transformers engine, cache, memory.

    python -m scripts.bench.engines [--json FILE]

Each engine runs in a process of its own: its start (loading, to the first value), the largest error of 200 values
against plain transformers in float32, step beam (3,5) and MCTS over held-out questions with their code run, the share
of prompt tokens that came from the cache, and the peak memory of all its processes. llama.cpp is measured in three
quantisations. vLLM is measured in the environment of `make test-vllm`, where there is one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arbor.assembly import load_model, open_solver
from eval.data.questions import read_questions
from mcts.model import Context
from mcts.search.driver import solve_all
from models.engines.config import RunConfig, load_config
from scripts.bench.common import Claim, at_most, beside, main

WEIGHTS = Path("models/tiny/weights")
PROBLEMS = Path("models/tiny/data/heldout.jsonl")
VLLM_PYTHON = Path(".venv-vllm/bin/python")
VALUES = 200
SEARCHES = {"sbs_3_5": 24, "mcts": 6}  # questions of each
CPU = {"distributed_executor_backend": "uni", "gpu_memory_utilization": 0.3, "enforce_eager": True, "block_size": 32}
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}
ERRORS = {"transformers": 1e-3, "vllm": 1e-3, "llama_cpp F32": 1e-3, "openai": 1e-3}  # quantised files have no bar


def configuration(name: str, engine: str, folder: str, engine_args: dict[str, Any]) -> RunConfig:
    changes = {"engine": engine, "model_dir": folder, "engine_args": engine_args, "dtype": "float32"}
    return load_config(f"configs/tiny/{name}.yaml").model_copy(update={**changes, "iterations": 12})


def roots(model: Any) -> list[Context]:
    """Prompts of many lengths: questions, and questions with the beginning of a step."""
    texts = [question.text for question in itertools.islice(read_questions(PROBLEMS), VALUES)]
    begun = ["", "<step>\n<p>\nLet f(x) be the error in percent.\n", "<step>\n<p>\nToo big.\n</p>\n<code>\n"]
    return [
        Context(None, model.encode_prompt(f"<question> {text} </question>\n" + begun[index % 3]))
        for index, text in enumerate(texts)
    ]


def plain_values() -> list[float]:
    """The values by transformers alone, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from models.engines.text import Tokenizer
    from models.engines.value_head import load_value_head

    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    head = load_value_head(WEIGHTS)
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(WEIGHTS))
    tokenizer.encode_prompt = tokenizer.encode_start  # type: ignore[attr-defined]
    with torch.inference_mode():
        return [
            head(model.base_model(torch.tensor([root.all_token_ids()])).last_hidden_state[0, -1]).item()
            for root in roots(tokenizer)
        ]


# --- in the engine's process


def worker(engine: str, folder: str, engine_args: dict[str, Any]) -> dict[str, Any]:
    """What one engine does, measured here."""
    started = time.perf_counter()
    model = load_model(configuration("sbs_3_5", engine, folder, engine_args))
    first = roots(model)[0]
    asyncio.run(model.evaluate(first))
    found: dict[str, Any] = {"start": time.perf_counter() - started}
    found["values"] = asyncio.run(_values(model))
    for name, count in SEARCHES.items():
        config = configuration(name, engine, folder, engine_args)
        asyncio.run(_search(config, model, 2))  # warm
        before = time.perf_counter()
        records = asyncio.run(_search(config, model, count))
        metas = [record["meta"] for record in records]
        found[name] = {
            "seconds": (time.perf_counter() - before) / count,
            "cached": sum(meta["tokens_reused"] for meta in metas)
            / max(1, sum(meta["prompt_tokens"] for meta in metas)),
            "generated": sum(meta["tokens_sampled"] for meta in metas) / (time.perf_counter() - before),
        }
    found["memory"] = sum(_peak(process) for process in _processes(os.getpid())) / 2**20
    return found


async def _values(model: Any) -> list[float]:
    return list(await asyncio.gather(*(model.evaluate(root) for root in roots(model))))


async def _search(config: RunConfig, model: Any, count: int) -> list[dict[str, Any]]:
    async with open_solver(config, model, {}, 0) as solver:
        questions = itertools.islice(read_questions(PROBLEMS), count)
        return [record async for _, record in solve_all(solver, questions, 8)]


def _processes(process: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield process
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from _processes(int(child))


def _peak(process: int) -> int:
    """The largest resident size so far, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


# --- in the process of the command


def measured(python: Path, engine: str, folder: Path, engine_args: dict[str, Any]) -> dict[str, Any]:
    """The report of a worker. Raises CalledProcessError."""
    with tempfile.NamedTemporaryFile() as file:
        command = [str(python), "-m", "scripts.bench.engines", "--worker", engine, str(folder), json.dumps(engine_args)]
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | SMALL | os.environ
        subprocess.run([*command, file.name], check=True, env=environment, stdout=subprocess.DEVNULL)
        return dict(json.loads(Path(file.name).read_text()))


def served() -> dict[str, Any]:
    """The openai engine over scripts/serve.py with the transformers engine."""
    serve = [sys.executable, "-m", "scripts.serve", "--custom_cfg", "configs/tiny/sbs_3_5.yaml", "--port", "0"]
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env={"OMP_NUM_THREADS": "1"} | os.environ)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        report = measured(Path(sys.executable), "openai", WEIGHTS, {"base_url": url})
        report["memory"] += sum(_peak(one) for one in _processes(process.pid)) / 2**20
        return report
    finally:
        process.terminate()


def reports() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every engine that is installed, by name."""
    python = Path(sys.executable)
    yield "transformers", measured(python, "transformers", WEIGHTS, {})
    if importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("gguf"):
        from models.engines.llama_cpp.export import export

        with tempfile.TemporaryDirectory() as folder:
            for kind in ("F32", "Q8_0", "Q4_K_M"):
                path = export(WEIGHTS, Path(folder) / kind, [kind])[0]
                args = {"threads": 1} | ({"kv_type": "f32"} if kind == "F32" else {})
                yield f"llama_cpp {kind}", measured(python, "llama_cpp", path, args)
    if importlib.util.find_spec("httpx"):
        yield "openai", served()
    if VLLM_PYTHON.exists():
        yield "vllm", measured(VLLM_PYTHON, "vllm", WEIGHTS, CPU)


def claims() -> list[Claim]:
    expected, base, rows = plain_values(), None, []
    for name, report in reports():
        base = base or report  # the transformers engine comes first
        error = max(abs(a - b) for a, b in zip(report["values"], expected, strict=True))
        if name in ERRORS:
            rows.append(at_most(f"{name}: largest error of {VALUES} values", error, ERRORS[name]))
        else:
            rows.append(beside(f"{name}: largest error of {VALUES} values", error, None))
        for search in SEARCHES:
            own, other = report[search], base[search]
            rows.append(beside(f"{name}: {search}", own["seconds"], other["seconds"], "s a question"))
            rows.append(beside(f"{name}: {search}, sampled", own["generated"], other["generated"], "token/s"))
            rows.append(beside(f"{name}: {search}, from the cache", 100 * own["cached"], 100 * other["cached"], "%"))
        rows.append(beside(f"{name}: start, first value included", report["start"], base["start"], "s"))
        rows.append(beside(f"{name}: peak memory of all processes", report["memory"], base["memory"], "MiB"))
    return rows


def _worker_main(engine: str, folder: str, engine_args: str, target: str) -> None:
    Path(target).write_text(json.dumps(worker(engine, folder, json.loads(engine_args))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _worker_main(*sys.argv[2:])
    else:
        main(__doc__, claims)

"""One key of the configuration chooses the engine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from arbor.assembly import describe, load_model
from mcts.errors import UserError
from models.engines.config import RunConfig, load_config
from tests.conftest import run_here
from tests.test_commands import HELD_OUT

TINY = Path("models/tiny/weights")


def config(**keys: object) -> RunConfig:
    return load_config("configs/tiny/sbs_1_5.yaml").model_copy(update=keys)


@pytest.mark.parametrize(
    ("engine", "module", "requirements"),
    [
        ("vllm", "vllm", "requirements-vllm.txt"),
        ("llama_cpp", "llama_cpp", "requirements-llama.txt"),
        ("openai", "httpx", "requirements-openai.txt"),
    ],
)
def test_a_missing_extra_says_what_to_install(
    engine: str, module: str, requirements: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)  # as if it were not installed
    folder = tmp_path
    for path in TINY.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=requirements) as refused:
        load_model(config(engine=engine, model_dir=str(folder)))
    assert "\n" not in str(refused.value)
    assert (Path(__file__).parents[1] / requirements).exists()


def test_an_unknown_engine_and_unknown_arguments_are_refused() -> None:
    with pytest.raises(UserError, match=r"'engine'.*transformers"):
        load_config("configs/tiny/sbs_1_5.yaml", ["engine=exllama"])
    with pytest.raises(UserError, match="transformers has no 'tensor_parallel_size'; it has threads"):
        load_model(config(engine_args={"tensor_parallel_size": 2}))


def test_the_place_of_a_server_does_not_make_another_run_but_its_model_does() -> None:
    here, there = (config(engine="openai", engine_args={"base_url": f"http://{host}/v1"}) for host in "ab")
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint() != config(engine_args={"base_url": "http://a/v1", "model": "m"}).fingerprint()


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf", "value_head.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    first, second = (
        describe(config(engine="llama_cpp", model_dir=str(tmp_path / name))) for name in ("a.gguf", "b.gguf")
    )
    assert first["model"]["name"] == "a.gguf" and first["model"]["weights"] != second["model"]["weights"]
    (tmp_path / "value_head.safetensors").write_bytes(b"other")
    assert describe(config(engine="llama_cpp", model_dir=str(tmp_path / "a.gguf")))["model"] != first["model"]
    with pytest.raises(UserError, match=r"2 [.]gguf files"):
        describe(config(engine="llama_cpp", model_dir=str(tmp_path)))


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_a_search_from_the_command_line_with_another_engine(tmp_path: Path) -> None:
    done = run_here("-m", "scripts.export_gguf", str(TINY), str(tmp_path), "--type", "Q8_0")
    assert done.returncode == 0, done.stderr
    output = tmp_path / "trees.jsonl"
    done = run_here(
        "solver_demo.py", "--custom_cfg", "configs/tiny/sbs_1_5.yaml", "--qaf", HELD_OUT, "--limit", "4",
        "--output", str(output), "--set", "engine=llama_cpp", "--set", "engine_args={threads: 1}",
        "--set", f"model_dir={tmp_path / 'Q8_0' / 'model.gguf'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4 and all(row["meta"]["versions"]["llama_cpp_python"] for row in rows)
    assert all(row["meta"]["tokens_reused"] > 0 for row in rows)


def test_mcts_without_a_value_head_from_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "trees.jsonl"
    done = run_here(
        "solver_demo.py", "--custom_cfg", "configs/tiny/mcts.yaml", "--qaf", HELD_OUT, "--limit", "2",
        "--output", str(output), "--set", "value_from=majority", "--set", "iterations=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert any(node["value"] != -100 for node in rows[0]["react"].values())

"""Configurations: published files load, mistakes get one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts.config import load_keys
from mcts.errors import UserError
from mcts.interpreter.limits import Limits
from models.engines.config import RunConfig, check_run, load_config, recorded_fingerprint, run_fingerprint
from models.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "path", [path for at in ("", "tiny", "tora") for path in sorted((ROOT / "configs" / at).glob("*.yaml"))]
)
def test_every_shipped_configuration_loads_and_starts_with_its_command(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# python ")
    config = load_config(path)
    if path.stem != "offline_inference":
        check_run(config)


def test_the_reference_configurations_load_unchanged(reference: Path) -> None:
    for path in sorted((reference / "golden/configs").glob("*.yaml")):
        assert load_config(path).seed == 42


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iteration: 40", ["unknown key 'iteration'", "did you mean 'iterations'"]),
        ("iterations: many", ["'iterations'", "'many'"]),
        ("iterations: 0", ["'iterations'", "greater than or equal to 1", "0"]),
        ("temperature: true", ["'temperature'", "True"]),
        ("mode: beam", ["'mode'", "'beam'", "known: mcts, react, sbs"]),
        ("stop: [1]", ["'stop'"]),
        ("mode: [", ["c.yaml:1", "not valid YAML"]),
        ("- a\n- b", ["expected key: value lines", "list"]),
        ("prompt_wrap: react_sft", ["prompt_wrap", "result_unwrap"]),
        ("best_of: 3", ["best_of", "step_beam_width"]),
        ("prompt_wrap: react_sf", ["'prompt_wrap'", "did you mean 'react_sft'"]),
        ("code_limits: {memory: 5}", ["'code_limits'", "unknown limit 'memory'; did you mean 'memory_bytes'"]),
        ("code_limits: {open_files: 0}", ["'code_limits'", "open_files", "above 0"]),
    ],
)
def test_a_mistake_is_one_line_that_names_file_key_and_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert all(word in message for word in words), message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml")


def test_overrides_win_and_are_read_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "iterations: 40\n")
    config = load_config(path, ["iterations=7", "stop=[a, b]", "seed=null", "prune=true"])
    assert (config.iterations, config.stop, config.seed, config.prune) == (7, ("a", "b"), None, True)
    with pytest.raises(UserError, match="expected key=value"):
        load_config(path, ["iterations"])
    with pytest.raises(UserError, match="unknown key 'c_punct'; did you mean 'c_puct'"):
        load_config(path, ["c_punct=1"])


@pytest.mark.parametrize(
    ("text", "number"), [("6e-3", 0.006), ("1E2", 100.0), (".5e+1", 5.0), ("-2e0", -2.0), ("1e-05", 1e-05), ("3", 3.0)]
)
def test_a_number_with_an_exponent_is_a_number_for_every_key_of_every_kind_of_configuration(
    tmp_path: Path, text: str, number: float
) -> None:
    (tmp_path / "c.yaml").write_text(f"hopeless_value: {text}\nstep_delim: e5\n", encoding="utf-8")
    assert load_config(tmp_path / "c.yaml").hopeless_value == number
    assert load_config(tmp_path / "c.yaml", [f"hopeless_value={text}"]).hopeless_value == number
    (tmp_path / "t.yaml").write_text("examples: [x]\nmodel_dir: m\noutput: o\n", encoding="utf-8")
    for key in ("learning_rate", "weight_decay", "beta", "margin", "value_weight"):
        settings = load_keys(TrainSettings, tmp_path / "t.yaml", [f"{key}={text.lstrip('-')}"])
        assert getattr(settings, key) == abs(number)


def test_one_stop_string_may_stand_alone(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, 'stop: "</step>"')).stop == ("</step>",)


def test_mcts_without_answers_and_without_a_value_head_is_refused() -> None:
    with pytest.raises(UserError, match="need_value_func: true"):
        check_run(RunConfig(mode="mcts", model_dir="m"))
    check_run(RunConfig(mode="mcts", model_dir="m", is_sampling=True))
    with pytest.raises(UserError, match="model_dir"):
        check_run(RunConfig(mode="sbs"))


def test_the_fingerprint_follows_what_shapes_a_tree_and_nothing_else() -> None:
    base = RunConfig(model_dir="a")
    assert base.fingerprint() == RunConfig(model_dir="b", batch_size=3, verbose=True, max_rows=8).fingerprint()
    assert base.fingerprint() != RunConfig(model_dir="a", c_puct=1.25).fingerprint()


def test_a_new_key_at_its_default_and_another_placement_continue_a_run() -> None:
    class Tomorrow(RunConfig):
        new_key: int = 3

    args = {"tensor_parallel_size": 1, "quantization": "awq"}
    base = RunConfig(model_dir="a", engine="vllm", engine_args=args)
    assert base.fingerprint() == Tomorrow(model_dir="a", engine="vllm", engine_args=args).fingerprint()
    assert base.fingerprint() != Tomorrow(model_dir="a", engine="vllm", engine_args=args, new_key=4).fingerprint()
    moved = RunConfig(model_dir="b", engine="vllm", engine_args=args | {"tensor_parallel_size": 8}, device="cuda:1")
    assert base.fingerprint() == moved.fingerprint()
    other = RunConfig(model_dir="a", engine="vllm", engine_args=args | {"quantization": "gptq"})
    assert base.fingerprint() != other.fingerprint()


def test_a_line_of_an_earlier_rule_is_known_by_the_configuration_that_it_holds() -> None:
    config = RunConfig(model_dir="a", mode="sbs", stop=("x",), c_puct=1.25)
    written = {"fingerprint": "0123456789abcdef-beef", "model": {"weights": "beef"}}
    saved = config.model_dump(mode="json", exclude_defaults=True)
    assert recorded_fingerprint({**written, "config": saved}) == run_fingerprint(config, "beef")
    assert recorded_fingerprint({**written, "config": saved | {"c_puct": 1.0}}) != run_fingerprint(config, "beef")
    ours = run_fingerprint(config, "beef")
    assert recorded_fingerprint({"fingerprint": ours}) == ours


def test_the_bounds_of_the_sandbox_come_from_the_configuration(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "code_timeout: 3\ncode_limits: {memory_bytes: 1000000, workers: 2}"))
    assert (config.limits.timeout_seconds, config.limits.memory_bytes, config.limits.workers) == (3.0, 1_000_000, 2)
    assert config.limits.max_states == Limits().max_states

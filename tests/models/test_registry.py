"""Engines are entries: what one can do stands in it, and another package adds one without a change here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcts.errors import UserError
from mcts.model import LanguageModel
from models.engines.config import RunConfig, load_config
from models.engines.registry import (
    ENGINES,
    check_model,
    describe_model,
    engine_versions,
    load_engine,
    placement_keys,
    register_engine,
)

TINY = Path("models/tiny/weights")


def config(**keys: Any) -> RunConfig:
    return load_config("configs/tiny/sbs_1_5.yaml").model_copy(update=keys)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(ENGINES, "_entries", dict(ENGINES._entries))
    monkeypatch.setattr(ENGINES, "_places", dict(ENGINES._places))
    monkeypatch.setattr(ENGINES, "_discovered", False)


def test_an_engine_of_another_package_is_added_by_a_decorator(clean: None) -> None:
    asked: list[tuple[str | None, bool]] = []

    @register_engine("outside", packages=("pydantic", "not-installed"), placement=("address",), reproducible=True)
    def outside(config: RunConfig, need_value: bool) -> LanguageModel:
        asked.append((config.model_dir, need_value))
        return ENGINES["transformers"].load(config.model_copy(update={"engine_args": {}}), need_value)

    own = config(engine="outside", engine_args={"address": "here"})
    assert load_engine(own).encode("1") == load_engine(config()).encode("1")
    assert asked == [(own.model_dir, True)]
    assert placement_keys("outside") == {"address"} and outside.reproducible
    assert describe_model(own) == describe_model(config())
    assert list(engine_versions(own)) == ["pydantic"]


def test_an_engine_of_an_installed_package_is_found_by_its_entry_point(
    clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_engine.py").write_text(
        "from models.engines.registry import Engine, register_engine\n"
        "@register_engine('by_decorator', model='none')\n"
        "def MADE(config, need_value):\n    return ('made', config.model_dir)\n"
        "PLAIN = Engine(lambda config, need_value: ('plain', need_value))\n"
    )
    info = tmp_path / "outside_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[arbor.engines]\nby_decorator = outside_engine:MADE\nplain = outside_engine:PLAIN\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    none = config(engine="by_decorator", model_dir=None)
    assert load_engine(none) == ("made", None) and check_model(none) is None
    assert describe_model(none) == {"name": "by_decorator", "weights": "none"}
    assert load_engine(config(engine="plain", need_value_func=False)) == ("plain", False)
    assert {"by_decorator", "plain", "vllm"} <= set(ENGINES)


def test_an_unknown_engine_names_its_nearest_neighbour() -> None:
    with pytest.raises(UserError, match="unknown engine 'transformer'; did you mean 'transformers'"):
        load_engine(config(engine="transformer"))


@pytest.mark.parametrize("name", ["transformers", "llama_cpp", "openai"])
def test_placement_keys_are_keys_of_the_engine(name: str) -> None:
    from models.engines.llama_cpp.weights import Settings as LlamaCpp
    from models.engines.openai import Settings as OpenAI
    from models.engines.transformers.engine import Settings as Transformers

    settings = {"transformers": Transformers, "llama_cpp": LlamaCpp, "openai": OpenAI}[name]
    assert placement_keys(name) <= set(vars(settings()))


def test_a_model_is_looked_for_as_its_engine_needs_it(tmp_path: Path) -> None:
    for engine, words in (
        ("transformers", "no config.json"),
        ("vllm", "no config.json"),
        ("llama_cpp", "no .gguf file"),
    ):
        with pytest.raises(UserError, match=words):
            check_model(config(engine=engine, model_dir=str(tmp_path)))
    assert check_model(config(engine="openai", model_dir=str(tmp_path))) == tmp_path
    with pytest.raises(UserError, match="model_dir is not set"):
        check_model(config(model_dir=None))


def test_the_extra_of_an_engine_has_a_file_of_requirements() -> None:
    for engine in ENGINES.values():
        assert not engine.extra or Path(f"requirements-{engine.extra}.txt").exists()

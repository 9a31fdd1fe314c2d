"""The configuration: the published keys, ours beside them, and errors that a person can act on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mcts.errors import UserError, nearest
from mcts.interpreter.limits import Limits
from mcts.markup.registry import MARKUPS
from mcts.registry import Registry
from mcts.search.methods import METHODS, Method

Strategy = Literal["value", "puct", "q_value", "visit_count"]
Vote = Literal["none", "majority", "value_weighted"]
Keys = TypeVar("Keys", bound=BaseModel)


def known(registry: Registry[Any], name: str) -> str:
    """`name`, if the registry has it; for a pydantic validator. Raises ValueError."""
    try:
        registry[name]
    except UserError as error:
        raise ValueError(str(error)) from None
    return name


class Config(BaseModel):
    """One search. The first block holds the published keys with their published defaults, the second block ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: str = "mcts"
    model_dir: str | None = None
    few_shot_path: str | None = None
    prompt_path: str | None = None
    num_few_shot: int = Field(2, ge=0)
    create_local_llm: bool = False  # accepted for compatibility: an engine is always created when it is needed
    prompt_wrap: str = "react"
    result_unwrap: str = "react"
    step_delim: str = "\n\n"
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(-1, ge=-1)
    use_beam_search: bool = False
    best_of: int = Field(1, ge=1)
    max_tokens: int = Field(2000, ge=1)
    seed: int | None = None
    swap_space: int = Field(8, ge=0)  # accepted for compatibility: the published engine's swap, in GiB
    n_generate_sample: int = Field(1, ge=1)  # B2
    stop: tuple[str, ...] | None = None
    step_beam_width: int = Field(1, ge=1)  # B1
    max_depth: int = Field(4, ge=1)
    iterations: int = Field(1, ge=1)  # MCTS simulations
    max_total_time: float = Field(300, gt=0)  # seconds a question
    reward_weight: float = 0.5  # accepted for compatibility: the published search never reads it
    positive_reward: float = 1.0
    negative_reward: float = -1.0
    errors_threshold: int = Field(0, ge=0)
    need_value_func: bool = False
    update_leaf_value: bool = False
    c_puct: float = Field(1.5, ge=0)
    is_sampling: bool = False  # training: the answers are known and give the rewards
    remove_duplicate: bool = False
    prune: bool = False
    mcts_infer_strategy: Strategy = "q_value"
    batch_size: int = Field(-1, ge=-1)  # questions in flight; -1: 64
    verbose: bool = False

    first_play_urgency: float = 0.0  # Q of a child that was never visited
    n_runs: int = Field(1, ge=1)  # searches of one question, decided by a majority (Maj@k)
    leaves_in_flight: int = Field(1, ge=1)  # simulations of one tree that are computed at a time
    in_flight_rule: Literal["virtual_loss", "unobserved"] = "unobserved"
    stop_when_decided: bool = False  # no further simulation can change the decision
    stop_agreement: float = Field(0.0, ge=0, le=1)  # share of the votes that one answer has; 0: never
    stop_answers: int = Field(3, ge=1)  # … of at least so many answers
    hopeless_value: float | None = None  # a branch whose Q is below it …
    hopeless_visits: int = Field(8, ge=1)  # … after so many visits gets no more simulations
    descend: bool = True  # MCTS that spent its budget without an answer goes on as a step beam until it has one
    budget_block: int = Field(0, ge=0)  # consecutive questions that share what they leave unspent; 0: none
    vote: Vote = "none"  # how the solutions of one tree are combined; none: the best one
    train_prompt: bool = False  # tora, pal, cot: the prompt of ToRA's trained models, without instructions and examples
    published_rules: bool = False  # steps are read as published where ours is stricter about what is an answer
    max_tool_calls: int | None = Field(None, ge=0)  # snippets along a path; None: no bound but max_depth
    code_state: Literal["carried", "fresh"] = "carried"  # whether a snippet sees the variables of the one before it
    code_timeout: float = Field(15.0, gt=0)  # seconds a snippet
    code_profile: Literal["alphamath", "arbor", "tora"] = "alphamath"  # how an observation is written
    code_limits: dict[str, Any] = {}  # bounds of the sandbox by the names of mcts/interpreter/limits.py
    sandbox: Literal["auto", "required", "off"] = "auto"
    engine: Literal["transformers", "vllm", "llama_cpp", "openai"] = "transformers"
    engine_args: dict[str, Any] = {}  # keys of the engine's own
    value_from: Literal["head", "majority"] = "head"  # majority: rollouts that end in the majority's answer
    value_rollouts: int = Field(4, ge=1)  # solutions a node, for value_from majority
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_rows: int = Field(256, ge=1)  # sequences decoded together

    @field_validator("mode")
    @classmethod
    def _mode_is_known(cls, value: str) -> str:
        return known(METHODS, value)

    @field_validator("prompt_wrap", "result_unwrap")
    @classmethod
    def _markup_is_known(cls, value: str) -> str:
        return known(MARKUPS, value)

    @field_validator("code_limits")
    @classmethod
    def _limits_are_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        known_limits = [one.name for one in dataclasses.fields(Limits) if one.name != "timeout_seconds"]
        for name in value:
            if name not in known_limits:
                raise ValueError(f"unknown limit {name!r}{nearest(name, known_limits)}")
        Limits(**value)
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _keys_agree(self) -> Config:
        if self.prompt_wrap != self.result_unwrap:
            raise ValueError(f"prompt_wrap is {self.prompt_wrap} but result_unwrap is {self.result_unwrap}: use one")
        if self.use_beam_search or self.best_of > 1:
            raise ValueError(
                "use_beam_search and best_of > 1 ask for token-level search, which is not supported: "
                "use mode sbs with step_beam_width and n_generate_sample"
            )
        if self.budget_block and (not self.method.simulates or self.n_runs > 1):
            raise ValueError("budget_block shares simulations between questions: use mode mcts and n_runs 1")
        if self.budget_block > self.questions_in_flight:
            raise ValueError(
                f"budget_block {self.budget_block} is larger than batch_size: a block is in flight as a whole"
            )
        return self

    @property
    def limits(self) -> Limits:
        """The bounds of the sandbox."""
        return Limits(timeout_seconds=self.code_timeout, **self.code_limits)

    @property
    def method(self) -> Method:
        return METHODS[self.mode]

    @property
    def decides_early(self) -> bool:
        return self.stop_when_decided or self.stop_agreement > 0 or self.hopeless_value is not None

    @property
    def backups_due(self) -> int:
        """How many values a simulation in flight is expected to back up."""
        return self.n_generate_sample if self.update_leaf_value else 1

    @property
    def in_flight_loss(self) -> float | None:
        """What `puct` takes an unobserved backup for; None: it does not guess."""
        return self.negative_reward if self.in_flight_rule == "virtual_loss" else None

    @property
    def questions_in_flight(self) -> int:
        return self.batch_size if self.batch_size > 0 else 64

    def fingerprint(self) -> str:
        """A hash of every key that shapes a tree: runs with the same one may be continued."""
        neutral = {
            "batch_size",
            "verbose",
            "device",
            "max_rows",
            "create_local_llm",
            "swap_space",
            "model_dir",
            "sandbox",
        }
        places = {
            "base_url",
            "in_flight",
            "timeout_seconds",
            "retries",
            "threads",
            "gpu_memory_utilization",
            "max_kept_tokens",
        }
        shaping = self.model_dump(exclude=neutral)
        shaping["engine_args"] = {key: value for key, value in self.engine_args.items() if key not in places}
        keys = json.dumps(shaping, sort_keys=True)
        return hashlib.sha256(keys.encode()).hexdigest()[:16]


def check_search(config: Config) -> None:
    """Raises UserError for a configuration that can decide on saved trees but cannot search."""
    if config.method.judged_by_value and not config.is_sampling and not config.need_value_func:
        raise UserError(
            f"mode {config.mode} without is_sampling judges answers by the value head: "
            "set need_value_func: true (and value_from: majority for a model without a value head), "
            "or is_sampling: true when the answers are known"
        )
    if config.model_dir is None:
        raise UserError("model_dir is not set: name the folder of a model, such as --set model_dir=FOLDER")


def _explain(error: ValidationError, source: str, known: Iterable[str]) -> str:
    first = error.errors()[0]
    key = ".".join(part for part in first["loc"] if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key {key!r}{nearest(key, known) if len(first['loc']) == 1 else ''}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{source}: {message}"
    return f"{source}: key {key!r}: {message[:1].lower()}{message[1:]}, found {first['input']!r}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path}: expected key: value lines, found {type(data).__name__}")
    return data


def _parse_override(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {item}: expected key=value, such as --set iterations=40")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {item}: the value is not valid YAML; quote it") from None


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The configuration of a search, from YAML. Raises UserError."""
    return load_keys(Config, path, overrides)


def load_keys(kind: type[Keys], path: str | Path, overrides: Iterable[str] = ()) -> Keys:
    """Reads a YAML file as `kind`; `overrides` are key=value items that win over the file. Raises UserError."""
    overrides = list(overrides)
    source = str(path) if not overrides else f"{path} with --set {' '.join(overrides)}"
    return make_keys(kind, read_keys(path, overrides), source)


def read_keys(path: str | Path | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The keys of a YAML file, if there is one, with `overrides` over them, before any check. Raises UserError."""
    return (_read_yaml(Path(path)) if path else {}) | dict(_parse_override(item) for item in overrides)


def make_config(keys: Mapping[str, Any], source: str) -> Config:
    """Checks `keys`, which come from `source`. Raises UserError."""
    return make_keys(Config, keys, source)


def make_keys(kind: type[Keys], keys: Mapping[str, Any], source: str) -> Keys:
    """`keys`, which come from `source`, as `kind`. Raises UserError."""
    try:
        return kind.model_validate(dict(keys))
    except ValidationError as error:
        raise UserError(_explain(error, source, kind.model_fields)) from None

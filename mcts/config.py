"""The configuration of a search, and the reading of YAML: errors name the file, the key and the remedy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mcts.errors import UserError, nearest
from mcts.interpreter.limits import Limits
from mcts.markup.chat import AnswerBy, ObservationAs, StepCut
from mcts.markup.registry import MARKUPS
from mcts.registry import Registry
from mcts.search.methods import METHODS, Method

Strategy = Literal["value", "puct", "q_value", "visit_count"]
Vote = Literal["none", "majority", "value_weighted"]
PathValue = Literal["last", "min", "mean", "product"]
Keys = TypeVar("Keys", bound=BaseModel)
FINGERPRINT = 2  # the version of the rule
CHAT_KEYS = {
    "chat_preset": "preset", "chat_template_path": "template", "template_options": "options", "system_prompt": "system",
    "user_prompt": "user", "step_cut": "cut", "observation_as": "observation", "answer_by": "answer",
    "thinking_tag": "thinks", "thinking_tokens": "thinking_tokens",
}  # fmt: skip
"""Key of a configuration → field of `mcts.markup.chat.Style`, and `preset`."""


def known(registry: Registry[Any], name: str) -> str:
    """`name`, if the registry has it; for a pydantic validator. Raises ValueError."""
    try:
        registry[name]
    except UserError as error:
        raise ValueError(str(error)) from None
    return name


def neutral(default: Any, **bounds: Any) -> Any:
    """A field that changes no tree: where and how fast a run is computed. It is left out of the fingerprint."""
    return Field(default, json_schema_extra={"neutral": True}, **bounds)


class Config(BaseModel):
    """The keys of a search: the published ones with their published defaults first, then ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    mode: str = "mcts"
    """search method: `mcts`, `sbs` (step-level beam search) or `react` (one chain of steps)"""
    few_shot_path: str | None = None
    """worked examples of the markup, a JSON list of `question`, `solution`; none: the shipped ones"""
    prompt_path: str | None = None
    """instructions of the markup, a text file; none: the shipped ones"""
    num_few_shot: int = Field(2, ge=0)
    """how many worked examples are shown"""
    prompt_wrap: str = "react"
    """markup: `react_sft` (tuned models), `react` (base models), [ToRA's](tora.md) `tora`, `pal`, `cot`, and `chat` for
    [models with a chat template](models.md)"""
    result_unwrap: str = "react"
    """the same as `prompt_wrap`"""
    step_delim: str = "\n\n"
    """what stands between steps"""
    temperature: float = Field(0.7, ge=0)
    """of a step's sampling; 0: the most likely token"""
    top_p: float = Field(1.0, gt=0, le=1)
    """nucleus sampling: the probability mass that is kept"""
    top_k: int = Field(-1, ge=-1)
    """the most likely tokens that are kept; -1: all"""
    use_beam_search: bool = False
    """token-level search: refused, use `mode: sbs`"""
    best_of: int = Field(1, ge=1)
    """token-level search: refused above 1, use `mode: sbs`"""
    max_tokens: int = Field(2000, ge=1)
    """tokens of one step at most"""
    seed: int | None = None
    """origin of all noise: (seed, question index, run, tag, sample index); none: drawn and recorded"""
    n_generate_sample: int = Field(1, ge=1)
    """steps sampled in an expansion (B2)"""
    stop: tuple[str, ...] | None = None
    """strings that end a step; none: those of the markup"""
    step_beam_width: int = Field(1, ge=1)
    """nodes that a beam and a decision keep (B1)"""
    max_depth: int = Field(4, ge=1)
    """steps of a solution at most"""
    iterations: int = Field(1, ge=1)
    """simulations of MCTS"""
    max_total_time: float = Field(300, gt=0)
    """seconds a question; what is found by then is kept"""
    reward_weight: float = neutral(0.5)
    """accepted without effect"""
    positive_reward: float = 1.0
    """reward of a right answer (`is_sampling`)"""
    negative_reward: float = -1.0
    """reward of a wrong answer and of a failed step"""
    errors_threshold: int = Field(0, ge=0)
    """consecutive code errors that a path survives"""
    need_value_func: bool = False
    """the value head judges; needs a model that has one, or `value_from: majority`"""
    update_leaf_value: bool = False
    """MCTS: every new child is evaluated and backed up, instead of the expanded node"""
    c_puct: float = Field(1.5, ge=0)
    """weight of exploration in PUCT"""
    is_sampling: bool = False
    """training: the known answers give the rewards"""
    remove_duplicate: bool = False
    """samples of one expansion with the same text become one child"""
    prune: bool = False
    """offline decisions: branches without an answer are cut before the walk"""
    mcts_infer_strategy: Strategy = "q_value"
    """what a decision ranks by: `value`, `q_value`, `visit_count` or `puct`"""
    batch_size: int = neutral(-1, ge=-1)
    """questions in flight; -1: 64"""
    verbose: bool = neutral(False)
    """accepted without effect"""

    first_play_urgency: float = 0.0
    """Q of a child that was never visited, in PUCT"""
    n_runs: int = Field(1, ge=1)
    """searches of one question, decided by a majority (Maj@k)"""
    leaves_in_flight: int = Field(1, ge=1)
    """simulations of one tree that are computed at a time ([below](#several-leaves-in-flight))"""
    in_flight_rule: Literal["virtual_loss", "unobserved"] = "unobserved"
    """how selection counts leaves in flight: `unobserved` or `virtual_loss`"""
    stop_when_decided: bool = False
    """stop a question when no further simulation can change its pick ([below](#early-decisions))"""
    stop_agreement: float = Field(0.0, ge=0, le=1)
    """stop when one answer has this share of the votes; 0: never"""
    stop_answers: int = Field(3, ge=1)
    """… of at least so many answers"""
    hopeless_value: float | None = None
    """a branch with a lower Q gets no more simulations; none: each does"""
    hopeless_visits: int = Field(8, ge=1)
    """… after so many visits"""
    descend: bool = True
    """MCTS that spent its budget without an answer goes on as a step beam (B1, B2) ([below](#the-end-of-a-budget))"""
    budget_block: int = Field(0, ge=0)
    """so many consecutive questions share the simulations that they leave unspent; 0: none"""
    path_value: PathValue = "last"
    """what a path is worth: its `last` step's value, or the `min`, `mean` or `product` of the values of all its steps
    ([below](#values-along-a-path))"""
    vote: Vote = "none"
    """how the solutions of one tree are combined: `none` (the best one), `majority`, `value_weighted`"""
    train_prompt: bool = False
    """`tora`, `pal`, `cot`: the prompt of ToRA's trained models in place of instructions and examples"""
    chat_preset: str | None = None
    """`chat`: a [family of models](models.md), which gives the keys below that are not set"""
    chat_template_path: str | None = None
    """`chat`: a file with a Jinja chat template; none: the tokenizer's own"""
    template_options: dict[str, Any] = Field(default_factory=dict)
    """`chat`: further variables of the template, such as `{enable_thinking: false}`"""
    system_prompt: str | None = None
    """`chat`: the system prompt; none: what `prompt_path` holds, else what the template puts there"""
    user_prompt: str | None = None
    """`chat`: the question's turn, with `{question}`"""
    step_cut: StepCut | None = None
    """`chat`: a step is a `paragraph`, a section under a `heading` "## Step n", text to the end of its `code`, or a
    `turn`; code runs with the last two"""
    observation_as: ObservationAs | None = None
    """`chat`: what code printed stands in an `output` block of the same turn, or in a turn of the `user` or a `tool`"""
    answer_by: AnswerBy | None = None
    """`chat`: the answer is the last `box`, what a `marker` calls so, or else the end of the last `statement`"""
    thinking_tag: str | None = None
    """`chat`: what opens a thinking section, such as `<think>`; "": the model does not think"""
    thinking_tokens: int | None = Field(None, ge=1)
    """`chat`: tokens after which a thinking section is closed"""
    published_rules: bool = False
    """steps are read as published where ours is stricter about what is an answer"""
    max_tool_calls: int | None = Field(None, ge=0)
    """snippets along a path; none: no bound but `max_depth`"""
    code_state: Literal["carried", "fresh"] = "carried"
    """whether a snippet sees the variables of the one before it"""
    code_timeout: float = Field(15.0, gt=0)
    """seconds a snippet"""
    code_profile: Literal["alphamath", "arbor", "tora"] = "alphamath"
    """how an observation is written"""
    code_limits: dict[str, Any] = {}
    """further bounds of the sandbox: [names and units](interpreter.md)"""
    sandbox: Literal["auto", "required", "off"] = neutral("auto")
    """confinement of the code: `required` refuses a weak one, `off` has none"""
    value_from: Literal["head", "majority"] = "head"
    """where values come from: the value head, or rollouts that end in the majority's answer"""
    value_rollouts: int = Field(4, ge=1)
    """rollouts a node, for `value_from: majority`"""

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

    def chat_keys(self) -> dict[str, Any]:
        """The keys of a chat that are set, by the fields of its `Style`."""
        given = {field: getattr(self, key) for key, field in CHAT_KEYS.items()}
        return {field: value for field, value in given.items() if value not in (None, {})}

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

    def shaping_keys(self) -> dict[str, Any]:
        """The keys that shape a tree and are not at their defaults: a key that is new, or that only says where a run is
        computed, changes nothing."""
        changed = self.model_dump(mode="json", exclude_defaults=True)
        return {key: value for key, value in changed.items() if key not in self.neutral_keys()}

    @classmethod
    def neutral_keys(cls) -> set[str]:
        extras = {key: field.json_schema_extra for key, field in cls.model_fields.items()}
        return {key for key, extra in extras.items() if isinstance(extra, dict) and extra.get("neutral")}

    def fingerprint(self) -> str:
        """A hash of the keys that shape a tree, with the version of this rule in front: runs with the same one may be
        continued."""
        keys = json.dumps(self.shaping_keys(), sort_keys=True)
        return f"{FINGERPRINT}-{hashlib.sha256(keys.encode()).hexdigest()[:16]}"


def check_search(config: Config) -> None:
    """Raises UserError for a configuration that can decide on saved trees but cannot search."""
    if config.method.judged_by_value and not config.is_sampling and not config.need_value_func:
        raise UserError(
            f"mode {config.mode} without is_sampling judges answers by the value head: "
            "set need_value_func: true (and value_from: majority for a model without a value head), "
            "or is_sampling: true when the answers are known"
        )


def _explain(error: ValidationError, source: str, known: Iterable[str]) -> str:
    first = error.errors()[0]
    key = ".".join(part for part in first["loc"] if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key {key!r}{nearest(key, known) if len(first['loc']) == 1 else ''}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{source}: {message}"
    return f"{source}: key {key!r}: {message[:1].lower()}{message[1:]}, found {first['input']!r}"


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, in which 6e-3 and 1e30 are numbers too, as in YAML 1.2 and in JSON."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader)
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
        return key.strip(), yaml.load(value, Loader)
    except yaml.YAMLError:
        raise UserError(f"--set {item}: the value is not valid YAML; quote it") from None


def load_keys(kind: type[Keys], path: str | Path, overrides: Iterable[str] = ()) -> Keys:
    """Reads a YAML file as `kind`; `overrides` are key=value items that win over the file. Raises UserError."""
    overrides = list(overrides)
    source = str(path) if not overrides else f"{path} with --set {' '.join(overrides)}"
    return make_keys(kind, read_keys(path, overrides), source)


def read_keys(path: str | Path | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The keys of a YAML file, if there is one, with `overrides` over them, before any check. Raises UserError."""
    read = look_up(_read_yaml(Path(path)), Path(path)) if path else {}
    return read | dict(_parse_override(item) for item in overrides)


def look_up(keys: dict[str, Any], source: Path) -> dict[str, Any]:
    """`keys` of the file `source` with the paths among them (`..._dir`, `..._path`, lists of `examples` and `replay`)
    as they are found: beside the file, else in the working folder, else in a folder above the file; what is found
    nowhere stays as it is."""
    return {
        key: look_up(value, source) if isinstance(value, dict) else
        find_beside(value, source.parent) if isinstance(value, str) and key.endswith(("_dir", "_path")) else
        [find_beside(one, source.parent) if isinstance(one, str) else one for one in value]
        if isinstance(value, list) and key.endswith(("examples", "replay")) else value
        for key, value in keys.items()
    }  # fmt: skip


def find_beside(path: str, folder: Path) -> str:
    """Where a path is that a file in `folder` names; `path` itself where it is in the working folder, or nowhere."""
    above = (folder.absolute(), *folder.absolute().parents)
    if not path or (not (above[0] / path).exists() and Path(path).exists()):
        return path
    return next((str(one / path) for one in above if (one / path).exists()), path)


def make_keys(kind: type[Keys], keys: Mapping[str, Any], source: str) -> Keys:
    """`keys`, which come from `source`, as `kind`. Raises UserError."""
    try:
        return kind.model_validate(dict(keys))
    except ValidationError as error:
        raise UserError(_explain(error, source, kind.model_fields)) from None

"""What a client asks for: bodies of OpenAI's API read as a question, a method and the keys of its search."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arbor.methods import MCTS, Greedy, Sampling, StepBeam
from arbor.serving.limits import Limits, Refused
from mcts.config import check_search, make_keys
from mcts.errors import UserError, nearest
from mcts.search.methods import METHODS
from models.engines.config import RunConfig

NAMES = ("arbor", "arbor-greedy", "arbor-maj-5", "arbor-sbs-1-5", "arbor-sbs-3-5", "arbor-mcts-40")
FORMS = "arbor-greedy, arbor-maj-N, arbor-sbs-B1-B2, arbor-mcts-N, arbor-mcts-N-B2, or arbor for the configured search"
KEYS = frozenset({
    "temperature", "top_p", "top_k", "seed", "max_tokens", "max_depth", "max_total_time", "iterations",
    "n_generate_sample", "step_beam_width", "n_runs", "c_puct", "first_play_urgency", "vote", "update_leaf_value",
    "path_value", "remove_duplicate", "prune", "mcts_infer_strategy", "stop_when_decided", "stop_agreement",
    "stop_answers",
    "hopeless_value", "hopeless_visits", "descend", "leaves_in_flight", "in_flight_rule", "max_tool_calls",
    "errors_threshold", "code_state",
})  # fmt: skip
"""Keys of a configuration that a request may set: none that names a file, or loosens the sandbox."""
OURS = frozenset({"model", "messages", "prompt", "stream", "stream_options", "tree", "max_completion_tokens", "n"})
WITHOUT_EFFECT = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
})  # fmt: skip
REFUSED: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logprobs": (False,),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "tool_choice": ("none",),
    "top_logprobs": (0,), "logit_bias": ({},), "stop": ([],), "tools": ([],), "functions": ([],), "echo": (False,),
    "suffix": ("",), "function_call": ("none",), "audio": (), "prediction": (), "reasoning_effort": (),
    "verbosity": (), "web_search_options": (),
}  # fmt: skip
"""Keys of OpenAI's API that a search cannot honour, with the values that ask for nothing."""


@dataclass(frozen=True)
class Asked:
    """A question for a search. name: the model's, as asked for. ignored: parts of the request without effect."""

    name: str
    question: str
    config: RunConfig
    stream: bool
    with_usage: bool
    with_tree: bool
    ignored: tuple[str, ...]


def parse_body(raw: bytes) -> dict[str, Any]:
    """Raises Refused for what is no JSON object."""
    try:
        body = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not valid JSON: {error!s:.100}") from None
    if not isinstance(body, dict):
        raise Refused(400, f"expected a JSON object, found {type(body).__name__}")
    return body


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def read_asked(body: Mapping[str, Any], base: RunConfig, limits: Limits, chat: bool) -> Asked:
    """A request to a search. base: the configuration of the server. Raises Refused."""
    name = body.get("model", "arbor")
    method = method_keys(name) if isinstance(name, str) else None
    if method is None:
        raise Refused(404, f"model {name!r:.80} is not served here; expected {FORMS}", "model_not_found", "model")
    question, ignored = _chat_question(body.get("messages")) if chat else (_prompt(body.get("prompt")), [])
    ignored += sorted(WITHOUT_EFFECT & body.keys())
    config = _configure(base, method, body, limits)
    stream, tree = _flag(body, "stream"), _flag(body, "tree")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refused(400, f"stream_options: expected an object, found {options!r:.40}", param="stream_options")
    usage = _flag(options or {}, "include_usage")
    return Asked(name, question, config, stream, usage, tree, tuple(ignored))


def method_keys(name: str) -> dict[str, Any] | None:
    """The keys of the search that a model's name stands for; None for a name of another form."""
    if name == "arbor":
        return {}
    found = re.fullmatch(r"arbor-(greedy|maj|sbs|mcts)((?:-[1-9]\d{0,5})*)", name, re.ASCII)
    if found is None:
        return None
    kind, numbers = found[1], [int(number) for number in found[2].split("-")[1:]]
    match kind, numbers:
        case "greedy", []:
            return Greedy().keys() | {"n_runs": 1}
        case "maj", [n]:
            return Sampling(n).keys()
        case "sbs", [beam, samples]:
            return StepBeam(beam, samples).keys() | {"n_runs": 1}
        case "mcts", [simulations]:
            return MCTS(simulations).keys() | {"n_runs": 1}
        case "mcts", [simulations, samples]:
            return MCTS(simulations, samples).keys() | {"n_runs": 1}
    return None


def kind_of(name: str) -> str:
    """A word for counters: `greedy`, `maj`, `sbs`, `mcts`, or `arbor` for the configured search."""
    return name.split("-")[1] if "-" in name else name


def _configure(base: RunConfig, method: dict[str, Any], body: Mapping[str, Any], limits: Limits) -> RunConfig:
    given = {key: value for key, value in body.items() if value is not None}
    for key, value in given.items():
        if key in REFUSED and value not in REFUSED[key]:
            hint = "; a vote of N solutions is the model arbor-maj-N" if key in ("n", "best_of") else ""
            raise Refused(400, f"{key}: a search cannot honour it{hint}", "unsupported_parameter", key)
        if key not in KEYS | OURS | WITHOUT_EFFECT | REFUSED.keys():
            raise Refused(400, f"unknown key {key!r:.60}{nearest(key, KEYS | OURS)}", "unknown_parameter", key[:60])
        if isinstance(value, int | float) and not _is_finite(value):
            raise Refused(400, f"{key}: expected a number of usual size", param=key)
    if "max_completion_tokens" in given:
        given["max_tokens"] = given.pop("max_completion_tokens")
    keys = {key: value for key, value in given.items() if key in KEYS}
    try:
        config = make_keys(RunConfig, base.model_dump(exclude_defaults=True) | method | keys, "the request")
        check_search(config)
    except UserError as error:
        raise Refused(400, str(error).removeprefix("the request: ")) from None
    if config.need_value_func and not base.need_value_func:
        raise Refused(
            400,
            "the server runs without a value head (need_value_func); expected arbor-greedy or arbor-maj-N",
            param="model",
        )
    if (samples := most_samples(config)) > limits.samples:
        raise Refused(400, f"such a search may sample {samples} steps; expected at most {limits.samples}")
    return config.model_copy(update={
        "max_total_time": min(config.max_total_time, limits.search_seconds),
        "max_tokens": min(config.max_tokens, base.max_tokens),
    })  # fmt: skip


def most_samples(config: RunConfig) -> int:
    """How many steps a search may sample."""
    width = config.step_beam_width * config.n_generate_sample
    steps = (config.max_depth + 1) * width
    if METHODS[config.mode].simulates:
        steps += config.iterations * config.n_generate_sample
    return steps * config.n_runs * (1 if config.value_from == "head" else 1 + config.value_rollouts)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(float(number)) and abs(number) < 1 << 63
    except OverflowError:
        return False


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise Refused(400, f"{key}: expected true or false, found {value!r:.40}", param=key)
    return bool(value)


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    return _text(prompt, "prompt")


def _text(text: Any, param: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise Refused(400, f"{param}: expected a question, one text that is not empty", param=param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"{param}: holds half a surrogate pair, which is no text", param=param) from None
    return text


def _chat_question(messages: Any) -> tuple[str, list[str]]:
    """The one question of a chat, and the messages that say nothing to a search. Raises Refused."""
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise Refused(400, "messages: expected a list of objects", param="messages")
    before = [f"messages[{at}]" for at, one in enumerate(messages[:-1]) if one.get("role") in ("system", "developer")]
    if len(before) != len(messages) - 1 or messages[-1].get("role") != "user":
        raise Refused(
            400, "messages: a search answers one question; expected one user message, with at most system messages "
            "before it (they have no effect: the markup is the prompt)", param="messages",
        )  # fmt: skip
    content = messages[-1].get("content")
    if isinstance(content, list):
        if not all(isinstance(one, dict) and one.get("type") == "text" for one in content):
            raise Refused(400, "messages: expected parts of the type text", param="messages")
        content = "\n".join(_text(one.get("text"), "messages") for one in content)
    return _text(content, "messages"), before

"""The OpenAI engine: any server with OpenAI-style /v1/completions as policy, and as value where it can say one. (For
/v1/chat/completions see openai_chat.py.)

What a server understands is found out when the engine starts, by two tokens:
- token ids in and out (vLLM's extensions, `scripts/serve.py`): exactly what the other engines do;
- token ids in, text out (SGLang, llama.cpp's own server): the reply is tokenised again, so boundaries may move;
- text only (llama-cpp-python's server): the prompt is tokenised again by the server, too.
Values come from the slot of the vLLM plugin (`value_token_id`) or from a field `value` of the reply; else there are
none, and Maj@k or a value from rollouts is what is left. The seed of a sample is a function of (key, index); what a
server makes of it is its own affair. Without log-probabilities in the replies every prior is 1.
"""

from __future__ import annotations

import itertools
import math
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Finish, Sample, Sampling
from models.engines.arguments import read_settings
from models.engines.client import Client, Refused, address, require
from models.engines.draft import Drafts
from models.engines.folder import check_model_dir
from models.engines.queue import Background
from models.engines.remote import RemoteModel
from models.engines.sampling import seed_of
from models.engines.text import eos_ids, load_tokenizer

VALUE_OFFSET = 64.0  # of the vLLM plugin's slot
OFFICIAL = "https://api.openai.com/v1"
CHOICES = {"api": ("completions", "chat"), "continues": ("no", "message", "vllm", "prefix")}
UNFINISHED = ("abort", "error", "content_filter")  # the text ends where it should not


@dataclass(frozen=True)
class Settings:
    """engine_args of this engine. The key of the server, if it needs one, is in the environment: OPENAI_API_KEY.

    api: "completions", or "chat" for /v1/chat/completions. base_url: with the version, such as
    http://localhost:8000/v1; "": OPENAI_BASE_URL, and for chats the official one. model: "" takes the server's only
    one. window: 0 takes what the server says. in_flight: requests at a time. retries: after a failure that may pass,
    with growing pauses. continues: how a server of chats is asked to go on inside a turn (see openai_chat.py).
    body: further keys of every request, such as {reasoning_effort: high}.
    """

    base_url: str = ""
    model: str = ""
    value_token_id: int = -1
    window: int = 0
    in_flight: int = 64
    timeout_seconds: float = 600.0
    retries: int = 5
    api: str = "completions"
    continues: str = "no"
    body: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, args: dict[str, Any]) -> Settings:
        require()  # what is missing is said before what is wrong
        settings = read_settings(cls, "openai", args)
        for key, known in CHOICES.items():
            if (value := getattr(settings, key)) not in known:
                raise UserError(f"engine_args: {key}: expected {', '.join(known)}, found {value!r}")
        if settings.in_flight < 1 or settings.retries < 0 or settings.timeout_seconds <= 0:
            raise UserError("engine_args: in_flight and timeout_seconds must be positive, retries 0 or more")
        return replace(settings, base_url=address(settings.base_url, OFFICIAL if settings.api == "chat" else ""))

    def client(self) -> Client:
        return Client(self.base_url, self.in_flight, self.timeout_seconds, self.retries)


@dataclass(frozen=True)
class Dialect:
    """What the server understands. ids: token ids as prompt; extras: vLLM's fields for token ids in the reply."""

    ids: bool
    extras: bool


class OpenAIModel(RemoteModel):
    """`LanguageModel` over a server. May be used from several event loops, one after another."""

    def __init__(self, settings: Settings, tokenizer: Any, eos: frozenset[int]) -> None:
        """Asks the server what it has and understands. eos: the tokens that end a sequence. Raises UserError."""
        super().__init__(tokenizer, "openai")
        self.settings = settings
        self._bos: str = getattr(tokenizer, "bos_token", None) or ""
        self._controls = frozenset(getattr(tokenizer, "all_special_ids", ()))
        self._drafts = Drafts(self.tokenizer, eos)
        self._client = settings.client()
        self.close = weakref.finalize(self, _stop, self._thread, self._client)
        self._thread.call(self._greet())

    @classmethod
    def load(
        cls, model_dir: str | Path, *, need_value: bool = True, engine_args: dict[str, Any] | None = None
    ) -> OpenAIModel:
        """model_dir: a folder with the tokenizer of the served model. Raises UserError, also where `need_value` and the
        server gives none."""
        settings = Settings.read(engine_args or {})
        folder = check_model_dir(model_dir, need_config=False)
        tokenizer = load_tokenizer(folder)
        model = cls(settings, tokenizer, eos_ids(folder, tokenizer))
        if need_value:
            model._thread.call(model._evaluate(Context(None, model.encode_prompt("1 + 1 ="))))
        return model

    # --- one request

    async def _evaluate(self, context: Context) -> float:
        reply = await self._complete(context, {"max_tokens": 1, "temperature": 0.0})
        value = self._value(reply)
        if value is None:
            raise UserError(
                f"{self.settings.base_url} gives no values: serve the model with the vLLM plugin and set "
                "value_token_id, or take them from rollouts: value_from: majority"
            )
        return value

    async def _sample(self, context: Context, index: int, params: Sampling, limit: int) -> tuple[Sample, float | None]:
        wanted: dict[str, Any] = {"max_tokens": limit, "temperature": params.temperature}
        if params.stop:
            wanted["stop"] = list(params.stop)
        if params.temperature > 0:
            wanted |= {"top_p": params.top_p, "seed": seed_of(params.key, index) & 0x7FFFFFFF}
            if params.top_k > 0:
                wanted["top_k"] = params.top_k
        reply = await self._complete(context, wanted)
        return self._read(context, params, limit, reply["choices"][0]), self._value(reply)

    def _read(self, context: Context, params: Sampling, limit: int, choice: dict[str, Any]) -> Sample:
        each = (choice.get("logprobs") or {}).get("token_logprobs") or []
        logprobs = [logprob or 0.0 for logprob in each]
        total = choice.get("logprob")  # Arbor's: with the end of the sequence
        ids, which = choice.get("token_ids"), choice.get("stop_reason", choice.get("matched_stop"))
        length = choice.get("finish_reason") == "length"
        if ids is not None:
            finish: Finish = "length" if length else "eos"  # a stop string is found in the tokens
            if isinstance(which, int) and ids[-1:] == [which]:
                ids = ids[:-1]
            padded = logprobs + [0.0] * (len(ids) - len(logprobs))
            drawn = zip(ids, padded, strict=False)
            sample = self._drafts.start(context, params.stop, limit).extend(drawn, finish)
            known = len(each) >= len(ids) and None not in each
            return replace(
                sample,
                logprob=total if _is_number(total) else sample.logprob,
                logprobs=sample.logprobs if known else (),
            )
        stop = which if isinstance(which, str) and which in params.stop else ""
        finish = "length" if length else "stop" if stop else "eos"  # many servers do not say which stop string it was
        text = choice["text"].partition(stop)[0] if stop else choice["text"]
        token_ids = self.tokenizer.encode(text + stop)
        ends = self.tokenizer.ends(token_ids, text + stop)
        total = total if _is_number(total) else sum(logprobs)
        return Sample(token_ids, text, total, finish, stop, "", ends, Context(context, token_ids))

    def _value(self, reply: dict[str, Any]) -> float | None:
        """The value in a reply, if there is one. Raises UserError for a number that cannot be one."""
        value = reply.get("value")
        if value is None and self.settings.value_token_id >= 0:
            rows = (reply["choices"][0].get("logprobs") or {}).get("top_logprobs") or [{}]
            slot: Any = (rows[0] or {}).get(f"token_id:{self.settings.value_token_id}")
            value = slot + VALUE_OFFSET if _is_number(slot) else slot
        if value is None:
            return None
        if not _is_number(value) or abs(value) > 1.001:  # the slot is rounded
            raise UserError(
                f"{self.settings.base_url} gives {value!r:.40} as a value, which is not from -1 to 1; "
                "value_token_id must be the slot that the vLLM plugin names"
            )
        return float(value)

    # --- the server

    async def _greet(self) -> None:
        self._name, described = await self._client.served(self.settings.model)
        said = described.get("max_model_len") or (described.get("meta") or {}).get("n_ctx_train") or 0
        self.window = self.settings.window or int(said)
        self.dialect = await self._find_dialect()

    async def _find_dialect(self) -> Dialect:
        """Tries what servers may understand, the best first. What may pass (503, a broken connection) is waited for:
        it says nothing about the server's language."""
        error: Refused | None = None
        probe = Context(None, self.encode_prompt("1 + 1 ="))
        for dialect in (Dialect(True, True), Dialect(True, False), Dialect(False, True), Dialect(False, False)):
            self.dialect = dialect
            try:
                reply = await self._complete(probe, {"max_tokens": 2, "temperature": 0.0}, probing=True)
            except Refused as found:
                error = found
                continue
            return Dialect(dialect.ids, reply["choices"][0].get("token_ids") is not None)
        raise UserError(
            f"{self.settings.base_url}/completions: not OpenAI-style completions: {error} "
            "(a server of chats alone: engine_args api: chat)"
        )

    def _prompt_text(self, ids: list[int]) -> str:
        """The prompt for a server that takes none as token ids: it adds the BOS itself, and would read control tokens
        in the text of a question; those that are tokens of the prompt it shall read."""
        text = ""
        for control, run in itertools.groupby(ids, key=self._controls.__contains__):
            decode = self.tokenizer.decode if text else self.tokenizer.decode_start
            part = decode(list(run))
            text += part if control else self.tokenizer.disarmed(part)
        return text.removeprefix(self._bos)

    async def _complete(self, context: Context, wanted: dict[str, Any], probing: bool = False) -> dict[str, Any]:
        """The reply to one prompt, one choice. Raises UserError, ContextTooLong and, when probing, Refused."""
        ids = context.all_token_ids()
        prompt = ids if self.dialect.ids else self._prompt_text(ids)
        body = {"model": self._name, "prompt": prompt, "n": 1, "logprobs": 1, **self.settings.body, **wanted}
        if self.dialect.extras:
            body |= {"return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": False}
        if self.settings.value_token_id >= 0:
            body["logprob_token_ids"] = [self.settings.value_token_id]
        try:
            reply = await self._client.call("POST", "/completions", body, check=_completion_fault, probing=probing)
        except Refused as error:
            if error.too_long:
                raise ContextTooLong(str(error)) from None
            if probing:
                raise
            raise UserError(f"{self.settings.base_url}/completions: {error}") from None
        usage = reply.get("usage") or {}
        details = usage.get("prompt_tokens_details")
        reused = _count(details, "cached_tokens") if isinstance(details, dict) else 0
        generated = _count(usage, "completion_tokens")
        counted = {"prompt": len(ids), "reused": min(reused, len(ids)), "decoded": max(0, generated - 1)}
        self.counter.count(context, **counted, generated=generated)
        return reply


def _is_number(value: Any) -> TypeGuard[int | float]:
    return type(value) in (int, float) and math.isfinite(value)


def _count(usage: dict[str, Any], key: str) -> int:
    return usage[key] if type(usage.get(key)) is int else 0


def _completion_fault(reply: Any) -> str | None:
    """What keeps a reply from being a completion whose sample can be taken, or None."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "no choices"
    choice, usage = choices[0], reply.get("usage")
    if not isinstance(choice.get("text"), str):
        return "a choice without a text"
    finish = choice.get("finish_reason")
    if not isinstance(finish, str | None) or finish in UNFINISHED:
        return f"finish_reason {finish!r:.40}"
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs") or {}
    if ids is not None and not (isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)):
        return "token_ids are no list of ids"
    drawn = (logprobs.get("token_logprobs") or []) if isinstance(logprobs, dict) else None
    if not isinstance(drawn, list) or not all(one is None or _is_number(one) for one in drawn):
        return "token_logprobs are no list of numbers"
    return None if isinstance(usage, dict | None) else "usage is no object"


def _stop(thread: Background, client: Client) -> None:
    thread.call(client.close())
    thread.stop()

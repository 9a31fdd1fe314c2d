"""The OpenAI engine: any server with OpenAI-style /v1/completions as policy, and as value where it can say one.

What a server understands is found out when the engine starts, by two tokens:
- token ids in and out (vLLM's extensions, `scripts/serve.py`): exactly what the other engines do;
- token ids in, text out (SGLang, llama.cpp's own server): the reply is tokenised again, so boundaries may move;
- text only (llama-cpp-python's server): the prompt is tokenised again by the server, too.
Values come from the slot of the vLLM plugin (`value_token_id`) or from a field `value` of the reply; else there are
none, and Maj@k or a value from rollouts is what is left. The seed of a sample is a function of (key, index); what a
server makes of it is its own affair. Without log-probabilities in the replies every prior is 1.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Finish, Sample, Sampling
from models.engines.arguments import read_settings
from models.engines.draft import Drafts
from models.engines.queue import Background
from models.engines.remote import RemoteModel
from models.engines.sampling import seed_of
from models.engines.text import first_line, load_tokenizer

MISSING = "the openai engine needs httpx: pip install -r requirements-openai.txt"
VALUE_OFFSET = 64.0  # of the vLLM plugin's slot
TOO_LONG = ("context length", "context size", "context window", "maximum model length", "too long")
UNFINISHED = ("abort", "error", "content_filter")  # the text ends where it should not
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Settings:
    """engine_args of this engine. The key of the server, if it needs one, is in the environment: OPENAI_API_KEY.

    base_url: with the version, such as http://localhost:8000/v1. model: "" takes the server's only one. window: 0 takes
    what the server says. in_flight: requests at a time. retries: after a failure that may pass, with growing pauses.
    """

    base_url: str = ""
    model: str = ""
    value_token_id: int = -1
    window: int = 0
    in_flight: int = 64
    timeout_seconds: float = 600.0
    retries: int = 5

    @classmethod
    def read(cls, args: dict[str, Any]) -> Settings:
        settings = read_settings(cls, "openai", args)
        if not settings.base_url.startswith(("http://", "https://")):
            raise UserError("engine_args: base_url: expected the server's address, such as http://localhost:8000/v1")
        try:
            urlsplit(settings.base_url).port  # noqa: B018 — asked for its range
        except ValueError as error:
            raise UserError(f"engine_args: base_url {settings.base_url!r}: {error}") from None
        if settings.in_flight < 1 or settings.retries < 0 or settings.timeout_seconds <= 0:
            raise UserError("engine_args: in_flight and timeout_seconds must be positive, retries 0 or more")
        return settings


class Refused(Exception):
    """A reply that another try would not change. The message is the server's."""


@dataclass(frozen=True)
class Dialect:
    """What the server understands. ids: token ids as prompt; extras: vLLM's fields for token ids in the reply."""

    ids: bool
    extras: bool


class OpenAIModel(RemoteModel):
    """`LanguageModel` over a server. May be used from several event loops, one after another."""

    def __init__(self, settings: Settings, tokenizer: Any) -> None:
        """Asks the server what it has and understands. Raises UserError."""
        super().__init__(tokenizer, "openai")
        self.settings = settings
        self._bos: str = getattr(tokenizer, "bos_token", None) or ""
        eos = tokenizer.eos_token_id
        self._drafts = Drafts(self.tokenizer, frozenset(() if eos is None else (eos,)))
        self._client, self._gate = _client(settings), asyncio.Semaphore(settings.in_flight)
        self.close = weakref.finalize(self, _stop, self._thread, self._client)
        self._thread.call(self._greet())

    @classmethod
    def load(
        cls, model_dir: str | Path, *, need_value: bool = True, engine_args: dict[str, Any] | None = None
    ) -> OpenAIModel:
        """model_dir: a folder with the tokenizer of the served model. Raises UserError, also where `need_value` and the
        server gives none."""
        try:
            import httpx  # noqa: F401
        except ImportError:
            raise UserError(MISSING) from None
        settings = Settings.read(engine_args or {})
        folder = Path(model_dir)
        if not folder.is_dir():
            raise UserError(f"model_dir {folder}: no such folder; the openai engine reads the model's tokenizer there")
        model = cls(settings, load_tokenizer(folder))
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
        try:
            models = (await self._call("GET", "/models", check=_models_fault)).get("data") or []
        except Refused as error:
            base = self.settings.base_url
            raise UserError(f"{base}/models: {error}; base_url ends with the version, such as /v1") from None
        names = [model["id"] for model in models]
        self._name = self.settings.model or (names[0] if len(names) == 1 else "")
        if not self._name or (names and self._name not in names):
            known = ", ".join(names) or "none"
            raise UserError(f"engine_args: model {self.settings.model!r}: {self.settings.base_url} serves {known}")
        described: dict[str, Any] = next((model for model in models if model["id"] == self._name), {})
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
        raise UserError(f"{self.settings.base_url}/completions: not OpenAI-style completions: {error}")

    def _prompt_text(self, ids: list[int]) -> str:
        """The prompt for a server that takes none as token ids: it adds the BOS itself, and would read control tokens
        in the text of a question."""
        return self.tokenizer.disarmed(self.tokenizer.decode_start(ids).removeprefix(self._bos))

    async def _complete(self, context: Context, wanted: dict[str, Any], probing: bool = False) -> dict[str, Any]:
        """The reply to one prompt, one choice. Raises UserError, ContextTooLong and, when probing, Refused."""
        ids = context.all_token_ids()
        prompt = ids if self.dialect.ids else self._prompt_text(ids)
        body = {"model": self._name, "prompt": prompt, "n": 1, "logprobs": 1, **wanted}
        if self.dialect.extras:
            body |= {"return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": False}
        if self.settings.value_token_id >= 0:
            body["logprob_token_ids"] = [self.settings.value_token_id]
        try:
            reply = await self._call("POST", "/completions", body, check=_completion_fault, probing=probing)
        except Refused as error:
            if any(sign in str(error).lower() for sign in TOO_LONG):
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

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        check: Callable[[Any], str | None],
        probing: bool = False,
    ) -> dict[str, Any]:
        """One request, repeated after failures that may pass. check: what is wrong with a reply, or None.

        Raises Refused, and UserError when it gives up. When probing, a server that breaks over a request (500, a reply
        of another form) has refused it.
        """
        import httpx

        url = self.settings.base_url.rstrip("/") + path
        left, pause = self.settings.retries, 0.5
        while True:
            try:
                async with self._gate:
                    response = await self._client.request(method, url, json=body)
                if response.status_code < 300:
                    reply = response.json()
                    fault = check(reply)
                    if fault is None:
                        return dict(reply)
                    trouble, passes = f"a reply of another form: {fault}", not probing
                else:
                    trouble = f"{response.status_code}: {_message(response)}"
                    passes = response.status_code in BUSY and not (probing and response.status_code == 500)
                if response.status_code in (401, 403):
                    raise UserError(f"{url}: {trouble}; set OPENAI_API_KEY to the server's key")
                if not passes:
                    raise Refused(trouble)
                pause = max(pause, _seconds(response.headers.get("retry-after")))
            except httpx.InvalidURL as error:
                raise UserError(f"engine_args: base_url {self.settings.base_url!r}: {first_line(error)}") from None
            except (httpx.TransportError, ValueError) as error:  # ValueError: a reply that is not JSON
                trouble = first_line(error) or type(error).__name__
            if left == 0:
                raise UserError(f"{url}: {trouble} (given up after {1 + self.settings.retries} tries)")
            left -= 1
            await asyncio.sleep(pause * (1 + random.random() / 4))
            pause = min(2 * pause, 30.0)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return type(value) in (int, float) and math.isfinite(value)


def _count(usage: dict[str, Any], key: str) -> int:
    return usage[key] if type(usage.get(key)) is int else 0


def _models_fault(reply: Any) -> str | None:
    models = (reply.get("data") or []) if isinstance(reply, dict) else None
    if not isinstance(models, list) or not all(isinstance(one, dict) and "id" in one for one in models):
        return "expected an object with a list of models under data"
    return None


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


def _client(settings: Settings) -> Any:
    import httpx

    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError("OPENAI_API_KEY: holds characters that no header can carry")
    return httpx.AsyncClient(
        timeout=httpx.Timeout(settings.timeout_seconds, connect=10.0),
        limits=httpx.Limits(max_connections=settings.in_flight),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


def _stop(thread: Background, client: Any) -> None:
    thread.call(client.aclose())
    thread.stop()


def _message(response: Any) -> str:
    """What a server says about an error, in one line."""
    try:
        found = response.json()
        error = found.get("error", found)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return (str(text).strip().splitlines() or ["no message"])[0][:300]


def _seconds(header: str | None) -> float:
    try:
        return min(60.0, max(0.0, float(header or 0)))
    except ValueError:
        return 0.0

"""OpenAI-style completions over HTTP for any engine: policy, and the value of a prompt beside the choices.

A choice has `token_ids`, `token_logprobs` (null where the engine behind has only their sum) and `logprob`, the sum with
the end of the sequence. Not covered: streaming, chat; `arbor.serving` answers those by a search.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Expansion, Sample, Sampling
from models.engines.queue import Background

MAX_BODY_BYTES = 32 << 20
KEPT_CONTEXTS = 1024
UNSUPPORTED = ("stream", "echo", "suffix", "logit_bias", "presence_penalty", "frequency_penalty")


class BadRequest(Exception):
    """The message is one line for the client."""


class Contexts:
    """Finds the context that a prompt continues, so that the engine's kept entries serve it; the newest are held."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[int, ...], Context] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, ids: tuple[int, ...]) -> Context:
        with self._lock:
            lengths = sorted({len(known) for known in self._held if len(known) <= len(ids)}, reverse=True)
            start = next((ids[:length] for length in lengths if ids[:length] in self._held), None)
            if start is None:
                context = Context(None, ids)
            else:
                self._held.move_to_end(start)
                context = self._held[start] if start == ids else Context(self._held[start], ids[len(start) :])
            self._hold(ids, context)
            return context

    def keep(self, ids: tuple[int, ...], samples: tuple[Sample, ...]) -> None:
        with self._lock:
            for sample in samples:
                if sample.context is not None:
                    self._hold(ids + sample.token_ids, sample.context)

    def _hold(self, ids: tuple[int, ...], context: Context) -> None:
        self._held[ids] = context
        while len(self._held) > KEPT_CONTEXTS:
            self._held.popitem(last=False)


class Service:
    """The engine in an event loop of its own, asked from the threads of the connections."""

    def __init__(self, model: Any, name: str, thread: Background | None = None) -> None:
        """thread: with the event loop that the engine belongs to; None: one of its own."""
        self.model, self.name = model, name
        self.contexts = Contexts()
        self._vocabulary: int = model.tokenizer.size
        self._seeds = itertools.count()
        self._thread = thread or Background("serve")

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """`answer`, awaited from a thread."""
        return self._thread.call(self.answer(body))

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request. Raises BadRequest and ContextTooLong."""
        ids = self._prompt(body.get("prompt", ""))
        n = _number(body, "n", 1, int, 1, 256)
        params = Sampling(
            temperature=_number(body, "temperature", 1.0, float, 0, 100),
            top_p=_number(body, "top_p", 1.0, float, 1e-6, 1),
            top_k=_number(body, "top_k", -1, int, -1, 1 << 31),
            max_tokens=_number(body, "max_tokens", 16, int, 1, 1 << 31),
            stop=_stops(body.get("stop")),
            key=("serve", _number(body, "seed", next(self._seeds), int, -(1 << 63), 1 << 64)),
        )
        if wanted := [key for key in UNSUPPORTED if body.get(key)]:
            raise BadRequest(f"{wanted[0]}: not supported")
        if body.get("model") not in (None, self.name):
            raise BadRequest(f"model: {body['model']!r:.100} is not served here; expected {self.name!r}")
        context = self.contexts.get(ids)
        expansion: Expansion = await self.model.sample(context, n, params)
        self.contexts.keep(ids, expansion.samples)
        choices = [self._choice(index, sample) for index, sample in enumerate(expansion.samples)]
        generated = sum(len(sample.token_ids) + (sample.finish == "eos") for sample in expansion.samples)
        usage = {"prompt_tokens": len(ids), "completion_tokens": generated, "total_tokens": len(ids) + generated}
        reply = {"object": "text_completion", "model": self.name, "choices": choices, "usage": usage}
        return reply if expansion.value is None else reply | {"value": expansion.value}

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "arbor"}]}

    def _prompt(self, prompt: Any) -> tuple[int, ...]:
        if isinstance(prompt, str) and prompt:
            return tuple(self.model.encode_prompt(prompt))
        if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
            if not all(0 <= token < self._vocabulary for token in prompt):  # it would break the others' requests too
                raise BadRequest(f"prompt: expected token ids from 0 to {self._vocabulary - 1}")
            return tuple(prompt)
        raise BadRequest("prompt: expected a text or a list of token ids, not empty")

    @staticmethod
    def _choice(index: int, sample: Sample) -> dict[str, Any]:
        return {
            "index": index,
            "text": sample.text,
            "finish_reason": "length" if sample.finish == "length" else "stop",
            "stop_reason": sample.stop or None,
            "token_ids": list(sample.token_ids),
            "logprob": sample.logprob,
            "logprobs": {"token_logprobs": list(sample.logprobs) or [None] * len(sample.token_ids)},
        }


def _number(body: dict[str, Any], key: str, default: Any, kind: type, low: float, high: float) -> Any:
    value = body.get(key)
    if value is None:
        return default
    if type(value) not in (int, kind) or not low <= value <= high:
        raise BadRequest(f"{key}: expected {kind.__name__} from {low} to {high}, found {value!r:.40}")
    return kind(value)


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(one, str) and one for one in stops):
        raise BadRequest("stop: expected a text or a list of texts, not empty")
    return tuple(stops)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 600.0  # seconds that a connection may be silent
    service: Service

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v1/models":
            self._reply(200, self.service.models())
        else:
            self._fail(404, f"{self.path}: there are /v1/models and /v1/completions")

    def do_POST(self) -> None:
        header = self.headers.get("content-length") or ""
        length = int(header) if header.isdecimal() else -1
        if not 0 <= length <= MAX_BODY_BYTES:
            self.close_connection = True
            self._fail(413, f"content-length: expected at most {MAX_BODY_BYTES}, found {header!r}")
            return
        raw = self.rfile.read(length)
        if self.path.rstrip("/") != "/v1/completions":
            self._fail(404, f"{self.path}: there are /v1/models and /v1/completions")
            return
        try:
            body = json.loads(raw)
            if not isinstance(body, dict):
                raise BadRequest("expected a JSON object")
            reply = self.service.complete(body)
        except ContextTooLong as error:
            self._fail(400, f"context length: {error}")
        except (BadRequest, UserError, ValueError, RecursionError) as error:
            self._fail(400, str(error))
        except Exception as error:  # the server lives on
            self._fail(500, f"{type(error).__name__}: {error}")
        else:
            self._reply(200, reply)

    def _reply(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _fail(self, code: int, message: str) -> None:
        self._reply(code, {"error": {"message": message, "code": code}})

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(host: str, port: int) -> Server:
    """A server on (host, port), port 0: any free one, for a handler with a service. Raises UserError."""
    try:
        return Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}:{port}: {getattr(error, 'strerror', error)}; choose another --host or --port"
        ) from None

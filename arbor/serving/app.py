"""The endpoint as an ASGI application: what OpenAI's clients speak, health, metrics.

`Guard` stands in front of every route: keys, lengths, clients that are slow or hang up, counters.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arbor.serving.asked import FORMS, NAMES, kind_of, method_keys, parse_body, read_asked
from arbor.serving.limits import Refused
from arbor.serving.replies import Reply
from arbor.serving.service import Service, Step

T = TypeVar("T")
HUNG_UP = 499
KEEP_ALIVE_SECONDS = 15.0
OPEN = ("/health",)  # paths that ask for no key


class HungUp(Exception):
    """The client left."""


def make_app(service: Service, keys: Sequence[str] = ()) -> ASGIApp:
    """keys: those that may ask, as `Authorization: Bearer KEY`; none: everybody."""
    routes = Endpoint(service)
    app = Starlette(
        routes=[
            Route("/health", routes.health),
            Route("/metrics", routes.metrics),
            Route("/v1/models", routes.models),
            Route("/v1/models/{name}", routes.model),
            Route("/v1/chat/completions", partial(routes.answered, chat=True), methods=["POST"]),
            Route("/v1/completions", partial(routes.answered, chat=False), methods=["POST"]),
        ],
        exception_handlers={404: _no_route, 405: _no_route},
    )
    return Guard(app, service, keys)


def _no_route(request: Request, error: Exception) -> Response:
    code = getattr(error, "status_code", 404)
    return refusal(Refused(code, f"{request.method} {request.url.path:.80}: no such route", "not_found"))


def refusal(error: Refused) -> JSONResponse:
    kind = "invalid_request_error" if error.status < 500 and error.status != 429 else "server_error"
    said = {"message": str(error)[:400], "type": kind, "code": error.code, "param": error.param}
    headers = {"Retry-After": "2"} if error.status in (429, 503) else {}
    return JSONResponse({"error": said}, error.status, headers)


class Endpoint:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        usable = [name for name in NAMES if self._usable(name)]
        self._models = [_model(service.name, search=False), *map(_model, usable)]

    def _usable(self, name: str) -> bool:
        try:
            read_asked({"model": name, "prompt": "?"}, self.service.config, self.service.limits, chat=False)
        except Refused:
            return False
        return True

    async def health(self, request: Request) -> Response:
        gate = self.service.gate
        state = {"status": "closing" if gate.closing else "ok", "in_flight": gate.running, "waiting": gate.waiting}
        return JSONResponse(state, 503 if gate.closing else 200)

    async def metrics(self, request: Request) -> Response:
        gate = self.service.gate
        text = self.service.metrics.render({"arbor_in_flight": gate.running, "arbor_waiting": gate.waiting})
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._models})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == self.service.name:
            return JSONResponse(_model(name, search=False))
        if method_keys(name) is not None and self._usable(name):
            return JSONResponse(_model(name))
        error = Refused(404, f"model {name!r:.80} is not served here; expected {FORMS}", "model_not_found", "model")
        return refusal(error)

    async def answered(self, request: Request, chat: bool) -> Response:
        try:
            return await self._answer(request, await self._body(request), chat)
        except Refused as error:
            return refusal(error)
        except HungUp:
            return Response(status_code=HUNG_UP)  # nobody reads it

    async def _body(self, request: Request) -> dict[str, Any]:
        limits, raw = self.service.limits, bytearray()
        try:
            async with asyncio.timeout(limits.read_seconds):
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > limits.body_bytes:
                        raise Refused(413, f"the body is longer than {limits.body_bytes} bytes", "too_large")
        except TimeoutError:
            raise Refused(408, f"the body did not come within {limits.read_seconds:g} s", "timeout") from None
        except ClientDisconnect:
            raise HungUp from None
        return parse_body(bytes(raw))

    async def _answer(self, request: Request, body: dict[str, Any], chat: bool) -> Response:
        service, name = self.service, body.get("model")
        if name == service.name or (name is None and not chat):
            if chat:
                raise Refused(400, f"model: {name} has no chat of its own; expected {FORMS}", param="model")
            request.state.kind = "engine"
            return JSONResponse(await or_hung_up(service.complete(body), request.receive))
        asked = read_asked(body, service.config, service.limits, chat)
        request.state.kind = kind_of(asked.name)
        reply = Reply(asked, chat, service.step_delim)
        found = service.search(asked)
        if asked.stream:
            return Stream(found, reply, request.receive)
        record = await or_hung_up(_last(found), request.receive)
        return JSONResponse(reply.whole(record))


def _model(name: str, search: bool = True) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "arbor", "search": search}


async def _last(found: AsyncGenerator[Any]) -> Any:
    """The last of what comes."""
    last = None
    async with aclosing(found):
        async for item in found:
            last = item
    return last


async def or_hung_up(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Awaits `work`; cancels it and raises HungUp when the client leaves before. The request's body was read."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.create_task(work), asyncio.create_task(leave())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise HungUp
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class Stream(Response):
    """Server-sent events: a chunk when the search begins, one a step, the answer, the end. What is refused before the
    search begins is refused by its status, later in an event."""

    def __init__(self, found: AsyncGenerator[Any], reply: Reply, receive: Receive) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._found, self._reply, self._receive = found, reply, receive
        self._whole = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await or_hung_up(self._send_all(scope, receive, send), self._receive)
        except HungUp:
            if not self._whole:  # else it left because it has everything
                raise

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            async with aclosing(_with_pauses(self._found)) as items:
                count = 0
                async for item in items:
                    if not begun:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        begun = True
                    await _send_event(send, *self._events(item, count))
                    count += isinstance(item, Step)
        except Refused as error:
            if not begun:
                self._whole = True
                await refusal(error)(scope, receive, send)
                return
            await _send_event(send, bytes(refusal(error).body))
        await _send_event(send, b"[DONE]")
        self._whole = True
        await send({"type": "http.response.body", "body": b""})

    def _events(self, item: Any, count: int) -> list[bytes]:
        if item is PAUSE:
            return [b""]
        if item is None:
            return [_encode(self._reply.first())]
        if isinstance(item, Step):
            return [_encode(self._reply.step(count, item))]
        return [_encode(chunk) for chunk in self._reply.last(item)]


PAUSE = object()


async def _with_pauses(found: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    """What comes, and PAUSE where nothing came for a while after the first."""
    async with aclosing(found):
        coming = asyncio.ensure_future(anext(found))
        begun = False
        try:
            while True:
                await asyncio.wait({coming}, timeout=KEEP_ALIVE_SECONDS if begun else None)
                if not coming.done():
                    yield PAUSE
                    continue
                try:
                    item = coming.result()
                except StopAsyncIteration:
                    return
                begun = True
                yield item
                coming = asyncio.ensure_future(anext(found))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _encode(chunk: dict[str, Any]) -> bytes:
    return json.dumps(chunk, ensure_ascii=True).encode()


async def _send_event(send: Send, *events: bytes) -> None:
    """An empty event is a comment, which keeps the connection open."""
    body = b"".join(b"data: " + event + b"\n\n" if event else b": waiting\n\n" for event in events)
    await send({"type": "http.response.body", "body": body, "more_body": True})


class Guard:
    """Keys, lengths, slow readers and counters, around an application."""

    def __init__(self, app: ASGIApp, service: Service, keys: Sequence[str]) -> None:
        self.app, self.service = app, service
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, seen = time.monotonic(), {"status": HUNG_UP}
        scope.setdefault("state", {})

        async def send_in_time(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            try:
                async with asyncio.timeout(self.service.limits.write_seconds):
                    await send(message)
            except (TimeoutError, OSError):
                raise HungUp from None

        self._open += 1
        try:
            await self._pass(scope, receive, send_in_time)
        except HungUp:
            seen["status"] = HUNG_UP
        finally:
            self._open -= 1
            self._count(scope, seen["status"], time.monotonic() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refuse(scope)
        if error is not None:
            reply = refusal(error)
            reply.headers["Connection"] = "close"  # the body is not read
            await reply(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refuse(self, scope: Scope) -> Refused | None:
        headers = dict(scope["headers"])
        if self._keys and scope["path"] not in OPEN and not self._is_known(headers.get(b"authorization", b"")):
            return Refused(401, "expected a known key: Authorization: Bearer KEY", "invalid_api_key")
        limits = self.service.limits
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > limits.body_bytes:
            return Refused(413, f"the body is longer than {limits.body_bytes} bytes", "too_large")
        if scope["method"] == "POST" and self._open > limits.open_requests:
            return Refused(429, f"{self._open - 1} requests are open; try again later", "busy")
        return None

    def _is_known(self, given: bytes) -> bool:
        """Compares with every key, each in constant time, so that the time says nothing about which is nearly right."""
        scheme, _, key = given.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._keys]
        return any(matches) and scheme.lower() == b"bearer"

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in _PATHS else "other"
        kind = scope["state"].get("kind", "")
        self.service.metrics.count("arbor_requests_total", path=path, kind=kind, status=str(status))
        if kind:
            self.service.metrics.observe(seconds, kind=kind)


_PATHS = ("/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions")

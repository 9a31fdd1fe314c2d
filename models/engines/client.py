"""Requests to an OpenAI-style server, by the conventions of the official client: the key, the organisation and the
address from OPENAI_API_KEY, OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_BASE_URL; what may pass is tried again after
the time that the server names, else after growing pauses with jitter."""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mcts.errors import UserError
from models.engines.text import first_line

MISSING = "the openai engine needs httpx: pip install -r requirements-openai.txt"
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0
LONGEST_RETRY_AFTER_SECONDS = 60.0  # a server that names a longer time is asked by our own rule
HEADERS = {
    "OPENAI_API_KEY": ("Authorization", "Bearer {}"),
    "OPENAI_ORG_ID": ("OpenAI-Organization", "{}"),
    "OPENAI_PROJECT_ID": ("OpenAI-Project", "{}"),
}
"""Variable of the environment → (header, its form)."""
TOO_LONG = ("context length", "context size", "context window", "context_length", "maximum model length", "too long")


class Refused(Exception):
    """A reply that another try would not change. The message is the server's."""

    @property
    def too_long(self) -> bool:
        """Whether the server says that the prompt does not fit."""
        return any(sign in str(self).lower() for sign in TOO_LONG)


def address(base_url: str, default: str = "") -> str:
    """The server's address: that of the configuration, else of OPENAI_BASE_URL, else `default`. Raises UserError."""
    url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or default
    if not url.startswith(("http://", "https://")):
        raise UserError(
            "engine_args: base_url: expected the server's address, such as http://localhost:8000/v1 "
            "(or OPENAI_BASE_URL in the environment)"
        )
    try:
        urlsplit(url).port  # noqa: B018 — asked for its range
    except ValueError as error:
        raise UserError(f"engine_args: base_url {url!r}: {error}") from None
    return url


class Client:
    """base_url: with the version, such as http://localhost:8000/v1. in_flight: requests at a time. retries: after a
    failure that may pass."""

    def __init__(self, base_url: str, in_flight: int, timeout_seconds: float, retries: int) -> None:
        """Raises UserError where httpx is not installed, and for a key that no header can carry."""
        self.base_url, self.retries = base_url, retries
        self._http = _http(in_flight, timeout_seconds)
        self._gate = asyncio.Semaphore(in_flight)

    async def close(self) -> None:
        await self._http.aclose()

    async def served(self, wanted: str) -> tuple[str, dict[str, Any]]:
        """(name, description) of the served model that is `wanted`, or of the only one. Raises UserError."""
        try:
            models = (await self.call("GET", "/models", check=_models_fault)).get("data") or []
        except Refused as error:
            base = self.base_url
            raise UserError(f"{base}/models: {error}; base_url ends with the version, such as /v1") from None
        names = [model["id"] for model in models]
        engines = [model["id"] for model in models if not model.get("search")]  # Arbor's server lists its searches, too
        name = wanted or (engines[0] if len(engines) == 1 else "")
        if not name or (names and name not in names):
            known = ", ".join(names) or "none"
            raise UserError(f"engine_args: model {wanted!r}: {self.base_url} serves {known}")
        return name, next((model for model in models if model["id"] == name), {})

    async def call(
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

        url = self.base_url.rstrip("/") + path
        for tries in range(1, self.retries + 2):
            named = None
            try:
                async with self._gate:
                    response = await self._http.request(method, url, json=body)
                reply, trouble, passes = _outcome(response, check, probing)
                if not trouble:
                    return reply
                if response.status_code in (401, 403):
                    raise UserError(f"{url}: {trouble}; set OPENAI_API_KEY to the server's key")
                if not passes:
                    raise Refused(trouble)
                named = retry_after(response.headers)
            except httpx.InvalidURL as error:
                raise UserError(f"engine_args: base_url {self.base_url!r}: {first_line(error)}") from None
            except (httpx.TransportError, ValueError) as error:  # ValueError: a reply that is not JSON
                trouble = first_line(error) or type(error).__name__
            if tries <= self.retries:
                await asyncio.sleep(pause_before(tries, named))
        raise UserError(f"{url}: {trouble} (given up after {1 + self.retries} tries)")


def pause_before(tries: int, named: float | None) -> float:
    """Seconds before the next try: what the server `named`, else twice as long after each try, up to a quarter less by
    chance, so that many who were refused together do not come back together."""
    if named is not None:
        return named
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (tries - 1), LONGEST_PAUSE_SECONDS) * (1 - random.random() / 4)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server names: `retry-after-ms`, or `retry-after` in seconds or as a date. None: none, or no
    sensible time."""
    seconds = _number(headers.get("retry-after-ms"), 1000.0)
    if seconds is None:
        seconds = _number(header := headers.get("retry-after"), 1.0)
        if seconds is None and header and (date := email.utils.parsedate_tz(header)):
            seconds = email.utils.mktime_tz(date) - time.time()
    return seconds if seconds is not None and 0 < seconds <= LONGEST_RETRY_AFTER_SECONDS else None


def _number(header: str | None, unit: float) -> float | None:
    try:
        return float(header or "") / unit
    except ValueError:
        return None


def _outcome(response: Any, check: Callable[[Any], str | None], probing: bool) -> tuple[dict[str, Any], str, bool]:
    """(the reply, what is wrong with it or "", whether another try may help). Raises ValueError for no JSON."""
    status = response.status_code
    if status < 300:
        reply = response.json()
        fault = check(reply)
        return ({}, f"a reply of another form: {fault}", not probing) if fault else (dict(reply), "", False)
    passes = status in BUSY and not (probing and status == 500)
    if (said := response.headers.get("x-should-retry")) in ("true", "false"):
        passes = said == "true"
    return {}, f"{status}: {_message(response)}", passes


def require() -> None:
    """Raises UserError where httpx is not installed."""
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise UserError(MISSING) from None


def _http(in_flight: int, timeout_seconds: float) -> Any:
    require()
    import httpx

    headers: dict[str, str] = {}
    for name, (header, form) in HEADERS.items():
        value = os.environ.get(name, "").strip()
        if not (value.isascii() and value.isprintable()):
            raise UserError(f"{name}: holds characters that no header can carry")
        if value:
            headers[header] = form.format(value)
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=in_flight),
        headers=headers,
    )


def _models_fault(reply: Any) -> str | None:
    models = (reply.get("data") or []) if isinstance(reply, dict) else None
    if not isinstance(models, list) or not all(isinstance(one, dict) and "id" in one for one in models):
        return "expected an object with a list of models under data"
    return None


def _message(response: Any) -> str:
    """What a server says about an error, in one line."""
    try:
        found = response.json()
        error = found.get("error", found)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return (str(text).strip().splitlines() or ["no message"])[0][:300]

"""The engine's own completions behind a small HTTP server of the standard library, whose handlers tests bend: a server
that is busy, that says odd things, that knows texts alone."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from arbor.serving.completions import Completions
from arbor.serving.limits import Refused
from models.engines.queue import Background


class Service:
    """A model's completions, asked from the threads of the connections."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.thread = Background("serve")
        self._completions = Completions(model, name)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return self.thread.call(self._completions.answer(body))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 600.0  # seconds that a connection may be silent
    service: Service

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._reply(200, {"object": "list", "data": [{"id": self.service.name, "object": "model"}]})
        else:
            self._fail(404, f"{self.path}: no such route")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/completions":
            return self._fail(404, f"{self.path}: no such route")
        try:
            reply = self.service.complete(json.loads(raw))
        except Refused as error:
            return self._fail(error.status, str(error))
        return self._reply(200, reply)

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


def start(handler: type[Handler], service: Service | None = None, **changes: Any) -> tuple[ThreadingHTTPServer, str]:
    """A server that answers by `handler`, and its address."""
    keys = changes if service is None else {"service": service, **changes}
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), keys))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    return http, f"http://127.0.0.1:{http.server_address[1]}/v1"

"""A process that serves until it is told to end: SIGTERM lets the requests in flight finish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn

from arbor.assembly import load_model
from arbor.serving.app import make_app
from arbor.serving.limits import Limits
from arbor.serving.service import Service
from mcts.errors import UserError
from models.engines.config import RunConfig


class Server(uvicorn.Server):
    """Refuses requests that wait, as soon as the first signal comes; those in flight have `grace` seconds."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.gate.close)
        super().handle_exit(sig, frame)


def make_server(service: Service, keys: Sequence[str], grace: int) -> Server:
    settings = uvicorn.Config(
        make_app(service, keys),
        lifespan="off",
        access_log=False,
        log_level="error",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=grace,
        server_header=False,
    )
    return Server(settings, service)


def serve(
    config: RunConfig, name: str, limits: Limits, keys: Sequence[str], listening: socket.socket, grace: int
) -> None:
    """Serves on a socket until a signal comes. Raises UserError for a model that cannot be loaded, and for a search
    that needs the answers."""
    if config.is_sampling:
        raise UserError("is_sampling needs known answers, and requests have none: --set is_sampling=false")
    service = Service(config, load_model(config), name, limits)
    try:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"serving http://{shown}:{port}/v1", flush=True)
        make_server(service, keys, grace).run(sockets=[listening])
    finally:
        service.close()

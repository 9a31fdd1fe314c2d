"""Serve a model over OpenAI's API, with a search inside: chat and completions, streamed or not.

arbor serve --config configs/tiny/sbs_3_5.yaml --port 8000
arbor serve --config configs/mcts_sft.yaml --set model_dir=FOLDER --keys KEYS.txt

POST /v1/chat/completions and /v1/completions: the model's name chooses the search (arbor-greedy, arbor-maj-5,
arbor-sbs-3-5, arbor-mcts-40, or arbor for that of the configuration). /v1/completions with the name of the model's
folder asks the engine itself: prompts in texts or token ids, `value` beside the choices. Also /v1/models, /health,
/metrics. docs/serving.md has the keys of requests and replies. Needs arbor-search[serve].
"""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any

import click

from arbor.commands import _options as options
from arbor.commands._running import when_stopped
from arbor.serving.limits import Limits
from mcts.errors import UserError
from mcts.jsonl import reading
from models.engines.config import RunConfig, check_run


def read_keys(path: Path | None) -> list[str]:
    """The keys of a file, one a line, or of the variable ARBOR_API_KEY. Raises UserError."""
    if path is None:
        return [key] if (key := os.environ.get("ARBOR_API_KEY", "").strip()) else []
    with reading(path):
        keys = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(keys):
        raise UserError(f"{path}: no key in it; expected one a line")
    return [key for key in keys if key]


def listen(host: str, port: int, reuse_port: bool) -> socket.socket:
    """A listening socket; port 0: any free one. Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, reuse_port=reuse_port)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port}: {why}; choose another --host or --port") from None


@options.command(__doc__)
@options.config()
@click.option("--host", default="127.0.0.1", help="address to listen on; the default is this machine only")
@click.option("--port", type=options.Whole(0, 65535), default=8000, help="0: any that is free")
@click.option("--reuse-port", is_flag=True, help="several processes, one a GPU, listen on the same port")
@click.option("--keys", type=options.FILE, metavar="FILE", help="who may ask, one key a line  [default: ARBOR_API_KEY]")
@click.option("--in-flight", type=options.Whole(1), default=Limits.in_flight, help="requests computed at a time")
@click.option("--queue", type=options.Whole(0), default=Limits.queue, help="requests that wait; the next gets 429")
@click.option("--search-seconds", type=options.Whole(1), default=int(Limits.search_seconds), help="of a search at most")
@click.option(
    "--max-samples", "samples", type=options.Whole(1), default=Limits.samples, help="steps a request may sample"
)
@click.option("--max-body", "body_bytes", type=options.Whole(1), default=Limits.body_bytes, help="bytes of a request")
@click.option("--grace", type=options.Whole(0), default=30, help="seconds for requests in flight after SIGTERM")
def command(
    config: RunConfig, host: str, port: int, reuse_port: bool, keys: Path | None, grace: int, **limits: Any
) -> None:
    check_run(config)
    if any(importlib.util.find_spec(package) is None for package in ("starlette", "uvicorn")):
        raise UserError("arbor serve needs starlette and uvicorn: pip install 'arbor-search[serve]'")
    from arbor.serving.process import serve

    name, known = Path(str(config.model_dir or config.engine)).resolve().name, read_keys(keys)
    listening = listen(host, port, reuse_port)  # a port in use is found before the model is loaded
    with when_stopped(lambda: "no request is in flight"):
        serve(config, name, Limits(**limits), known, listening, grace)

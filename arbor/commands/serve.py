"""Serve any engine with OpenAI-style completions: policy, and the value of a prompt beside the choices.

arbor serve --config configs/tiny/sbs_3_5.yaml --port 8000

POST /v1/completions takes `prompt` (text or token ids), `n`, `max_tokens`, `temperature`, `top_p`, `top_k`, `stop`,
`seed`; the reply has `value` where the model has a value head, and each choice `token_ids` and `logprob`, the sum over
its tokens (null for each single one). GET /v1/models names the model. It asks for no key. Prompts that continue earlier
ones reuse their key/value entries. Not covered: streaming, chat.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.assembly import load_model
from arbor.commands import _options as options
from models.engines.config import RunConfig


@options.command(__doc__)
@options.config()
@click.option("--host", default="127.0.0.1", help="address to listen on; the default is this machine only")
@click.option("--port", type=int, default=8000, help="0: any that is free")
def command(config: RunConfig, host: str, port: int) -> None:
    from models.engines.server import Handler, Service, make_server

    server = make_server(host, port)  # a port in use is found before the model is loaded
    service = Service(load_model(config), Path(str(config.model_dir)).resolve().name)
    server.RequestHandlerClass = type("Bound", (Handler,), {"service": service})
    print(f"serving http://{host}:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()

"""Names of the hub: served here by a hub of our own on loopback, and refused in one line where none can be reached."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.models.engines import ROOT, WEIGHTS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {path.name: path.read_bytes() for path in WEIGHTS.iterdir()}


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of a hub: the files of a revision, and each file."""

    def do_HEAD(self) -> None:
        self._file(send=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/org/tiny/revision/"):
            revision = self.path.split("?")[0].rpartition("/")[2]
            if revision not in ("main", "v1", COMMIT):
                return self._reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            names = [{"rfilename": name} for name in [*FILES, "run_me.py", "model.bin"]]
            body = {
                "id": "org/tiny",
                "modelId": "org/tiny",
                "sha": COMMIT,
                "siblings": names,
                "private": False,
                "tags": [],
            }
            return self._reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if self.path.startswith(f"/api/models/org/tiny/tree/{COMMIT}"):
            sizes = {name: len(data) for name, data in FILES.items()} | {"run_me.py": 1, "model.bin": 1}
            listed = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]
            return self._reply(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})
        return self._file(send=True)

    def _file(self, send: bool) -> None:
        name = self.path.split("?")[0].rpartition("/")[2]
        if not self.path.startswith("/org/tiny/resolve/") or name not in FILES:
            return self._reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        etag = hashlib.sha256(FILES[name]).hexdigest()
        return self._reply(200, FILES[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, send=send)

    def _reply(self, code: int, body: bytes, headers: dict[str, str], send: bool = True) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def check(name: str, address: str, home: Path, need_config: bool = True) -> tuple[str, str]:
    """(folder, error) in a process of its own: the hub's address is read when its package is imported."""
    code = f"""
import sys
from mcts.errors import UserError
from models.engines.folder import check_model_dir
try:
    print(check_model_dir({name!r}, {need_config}))
except UserError as error:
    sys.exit(str(error))
"""
    environment = {
        "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PATH": "/usr/bin", "HF_HUB_ETAG_TIMEOUT": "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120
    )
    return done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize("name", ["org/tiny", "org/tiny@v1"])
def test_a_name_of_the_hub_is_fetched_with_its_revision(hub: str, tmp_path: Path, name: str) -> None:
    folder, error = check(name, hub, tmp_path)
    assert not error
    assert {path.name for path in Path(folder).iterdir()} == set(FILES) - {"README.md"}
    assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    again, error = check(name, "http://127.0.0.1:9", tmp_path)  # the hub is gone, its cache is not
    assert again == folder and not error


def test_a_tokenizer_alone_brings_no_weights(hub: str, tmp_path: Path) -> None:
    folder, error = check("org/tiny", hub, tmp_path, need_config=False)
    assert not error and (Path(folder) / "tokenizer.json").exists()
    assert not list(Path(folder).glob("*.safetensors"))


@pytest.mark.parametrize("name", ["org/tiny@v9", "org/none", "org/tiny"])
def test_what_cannot_be_had_is_one_line(hub: str, tmp_path: Path, name: str) -> None:
    _, error = check(name, "http://127.0.0.1:9" if name == "org/tiny" else hub, tmp_path)
    assert "\n" not in error and name.partition("@")[0] in error
    assert "no such folder" in error and "cannot be fetched" in error and "name its folder" in error


@pytest.mark.parametrize("name", ["models/x/y", "./a/b", "/a/b", "folder", "a/b/c@d", "../x"])
def test_a_path_is_no_name_of_the_hub(tmp_path: Path, name: str) -> None:
    _, error = check(name, "http://127.0.0.1:9", tmp_path)
    assert "no such folder" in error and "hub" not in error

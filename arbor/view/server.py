"""The page on this machine alone, over files that may still be written: http.server on 127.0.0.1."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from arbor.view.entries import Item, Json, make_item
from arbor.view.page import DATA, HEAD, encode, make_index, viewer
from mcts.errors import UserError
from mcts.jsonl import parse_line, reading
from mcts.trees.file import check_tree

HOST = "127.0.0.1"


class Followed:
    """The lines of a file that may grow. A last line that is not whole is not there yet.

    generation: counts how often another file took its place (a search that ends puts its lines in order).
    """

    def __init__(self, path: Path, *, graded: bool) -> None:
        self.path, self.graded = path, graded
        self.entries: list[Json] = []
        self.generation = 0
        self._places: list[tuple[int, int]] = []  # where a line begins, its bytes
        self._end = 0
        self._file = (0, 0)

    def read_on(self) -> None:
        """Takes what was appended. Raises UserError for a line that is no tree."""
        with reading(self.path), self.path.open("rb") as file:
            state = os.fstat(file.fileno())
            if (state.st_dev, state.st_ino) != self._file or state.st_size < self._end:
                self.entries, self._places, self._end = [], [], 0
                self._file = state.st_dev, state.st_ino
                self.generation += 1
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n") and not line.rstrip().endswith(b"}"):
                    return
                self._take(line)

    def _take(self, line: bytes) -> None:
        if line.strip():
            try:
                entry = self._item(len(self.entries), line).entry
            except UserError:
                if line.endswith(b"\n"):
                    raise
                return  # half a line that ends with the end of an object
            self.entries.append(entry)
            self._places.append((self._end, len(line)))
        self._end += len(line)

    def _item(self, number: int, line: bytes) -> Item:
        where = f"{self.path}:{number + 1}"
        return make_item(number, where, check_tree(where, parse_line(line, where)), graded=self.graded)

    def detail(self, number: int) -> Json:
        """Everything about a question. Raises IndexError and UserError."""
        start, length = self._places[number]
        with self.path.open("rb") as file:
            file.seek(start)
            return self._item(number, file.read(length)).detail


class PageServer(ThreadingHTTPServer):
    """Serves the page of `files`. Only requests that name this machine are answered, so no other site can read it."""

    daemon_threads = True

    def __init__(self, files: Sequence[Followed], port: int) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; choose another one, or 0 for a free one") from None
        self.files = files
        self.lock = threading.Lock()
        page = viewer().replace(HEAD, '<meta name="arbor-live" content="1">', 1).replace(DATA, "", 1)
        self.page = page.replace("default-src 'none'", "default-src 'none'; connect-src 'self'", 1).encode()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def index(self, have: str) -> bytes | None:
        """The list, or None where the page has it already. Raises UserError."""
        with self.lock:
            for file in self.files:
                file.read_on()
            version = "-".join(f"{file.generation}.{len(file.entries)}" for file in self.files)
            if version == have:
                return None
            generation = [file.generation for file in self.files]
            index = make_index([(file.path.name, file.entries) for file in self.files])
            return encode({**index, "version": version, "generation": str(generation)})

    def question(self, file: int, number: int) -> bytes:
        """Raises IndexError and UserError."""
        with self.lock:
            return encode(self.files[file].detail(number))


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        if self.headers.get("Host") not in (
            f"{HOST}:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            self._reply(HTTPStatus.FORBIDDEN, "text/plain", b"this page answers its own machine only")
            return
        url = urlsplit(self.path)
        try:
            match url.path.strip("/").split("/"):
                case [""]:
                    self._reply(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
                case ["index"]:
                    found = self.server.index(parse_qs(url.query).get("have", [""])[0])
                    self._reply(HTTPStatus.NO_CONTENT if found is None else HTTPStatus.OK, "application/json", found)
                case ["question", file, number] if file.isdecimal() and number.isdecimal():
                    self._reply(HTTPStatus.OK, "application/json", self.server.question(int(file), int(number)))
                case _:
                    self._reply(HTTPStatus.NOT_FOUND, "text/plain", b"no such page")
        except IndexError:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", b"no such question")
        except (UserError, OSError) as error:
            self._reply(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", str(error).encode())

    def _reply(self, status: HTTPStatus, kind: str, body: bytes | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body or b"")))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        if body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not logged."""


def serve_pages(paths: Sequence[Path], port: int, *, graded: bool = True) -> None:
    """Serves until Ctrl-C. Raises UserError for files that are no trees and for a port that is taken."""
    with PageServer([Followed(path, graded=graded) for path in paths], port) as server:
        server.index("")
        print(f"{server.url}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()

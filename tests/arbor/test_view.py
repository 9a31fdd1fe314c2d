"""The page of search trees without a browser: what stands in the file, and what the server answers."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from arbor.view.entries import read_items
from arbor.view.page import VIEWER, encode, write_page
from arbor.view.server import Followed, PageServer
from mcts.errors import UserError
from mcts.trees.file import TreeWriter
from tests.arbor.pages import EVIL, hostile, plain, simulated, write
from tests.conftest import run_here

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """The scripts, styles and other elements of a page, as a browser's parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        if self._inside == "style":
            self.styles[-1] += data

    def data(self, name: str) -> Any:
        block = next(text for attributes, text in self.scripts if attributes.get("id") == name)
        return json.loads(gzip.decompress(base64.b64decode(block, validate=True)))


def page_of(folder: Path, *paths: Path) -> Page:
    output = folder / "view.html"
    write_page(paths, output)
    return Page(output.read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing_and_runs_its_own_script_only() -> None:
    page = Page(VIEWER.read_text(encoding="utf-8"))
    policy = next(tag["content"] for name, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for kind, texts in (("script-src", [text for _, text in page.scripts]), ("style-src", page.styles)):
        assert len(texts) == 1
        digest = base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    for name, attributes in page.tags:
        assert not attributes.get("src") and attributes.get("href", "data:,") == "data:,", name
    assert not re.search(r"url\((?!data:)|@import|https?://(?!www\.w3\.org)", page.styles[0])
    assert VIEWER.stat().st_size < 800_000


def test_no_text_is_parsed_as_html_and_every_library_has_its_licence_beside() -> None:
    for source in (VIEWER.parent / "source" / "src").glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source.read_text())
    licences = (VIEWER.parent / "LICENCES.txt").read_text()
    packages = json.loads((VIEWER.parent / "source" / "package.json").read_text())["devDependencies"]
    for name, version in packages.items():
        assert name == "esbuild" or f"{name} {version} (" in licences
    assert "resolved" not in (VIEWER.parent / "source" / "package-lock.json").read_text()


def test_every_question_is_in_the_page_as_it_is_in_the_file(tmp_path: Path) -> None:
    records = [simulated(), plain("Q2", "1", "2"), plain("Q3", "1", None)]
    page = page_of(tmp_path, write(tmp_path / "trees.jsonl", *records))
    for number, record in enumerate(records):
        assert page.data(f"q0-{number}")["record"] == record
    entries = page.data("index")["files"][0]["entries"]
    assert [one["verdict"] for one in entries] == ["right", "wrong", "unanswered"]
    assert [one["reason"] for one in entries] == ["", "", "too deep"]
    assert entries[0]["error"] == pytest.approx(0.1) and entries[1]["error"] == pytest.approx(1.5)
    assert page.data("q0-0")["prompt"] == "<question> What is $2+3$? </question>\n"
    assert page.data("q0-0")["verdicts"] == {"5": True, "6": False}


def test_hostile_texts_stay_data(tmp_path: Path) -> None:
    page = page_of(tmp_path, write(tmp_path / "trees.jsonl", hostile()))
    kinds = [attributes.get("type") for attributes, _ in page.scripts]
    assert kinds == ["application/gzip", "application/gzip", None]
    assert {name for name, _ in page.tags} == {name for name, _ in Page(VIEWER.read_text(encoding="utf-8")).tags}
    found = page.data("q0-0")["record"]
    assert found["question"] == EVIL and found["weird"] == "nan" and found["__proto__"] == {"polluted": 1}
    assert found["react"] == hostile()["react"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (-float("inf"), "-inf"),
        ([{"a": float("inf")}], [{"a": "inf"}]),
        ("\ud800\x00", "\ud800\x00"),
        (10**400, 10**400),
    ],
)
def test_whatever_python_reads_becomes_json_that_a_browser_reads(value: Any, shown: Any) -> None:
    assert json.loads(encode({"value": value}).decode("ascii"))["value"] == shown


def test_observations_are_told_from_what_the_model_wrote_in_the_units_of_the_browser(tmp_path: Path) -> None:
    record = simulated()
    text = record["react"]["0.0"]["text"].replace("Add", "😀😀")
    record["react"]["0.0"] |= {"action": "python_interpreter", "text": text}
    item = next(read_items(write(tmp_path / "trees.jsonl", record)))
    units = text.encode("utf-16-le")[: 2 * item.detail["written"][0]["0.0"]].decode("utf-16-le")
    assert units.endswith("</code>") and text.removeprefix(units).startswith("\n<output>")


def test_two_files_are_joined_by_question_whatever_their_order(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", plain("Q1", "1", "1"), plain("Q2", "2", "2"), plain("Q3", "3", "0"))
    second = write(tmp_path / "b.jsonl", plain("Q3", "3", "3"), plain("Q1", "1", "9"), plain("Q4", "4", "4"))
    index = page_of(tmp_path, first, second).data("index")
    assert index["pairs"] == [[0, 1], [2, 0]]
    assert (index["test"]["n"], index["test"]["only_first"], index["test"]["only_second"]) == (2, 1, 1)
    with pytest.raises(UserError, match="no question in common"):
        page_of(tmp_path, first, write(tmp_path / "c.jsonl", plain("other", "1", "1")))


def test_answers_without_a_recorded_verdict_are_graded(tmp_path: Path) -> None:
    record = plain("Q", "1/2", "0.5")
    del record["prediction"], record["meta"]
    path = write(tmp_path / "published.jsonl", record)
    assert next(read_items(path)).entry["verdict"] == "right"
    assert next(read_items(path, graded=False)).entry["verdict"] == "ungraded"


def test_the_command_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"react": {"0": {"text": 3}}}\n')
    for words, said in (
        ((str(bad),), "bad.jsonl:1: node 0: text"),
        ((), "found 0"),
        ((str(bad), "--output", str(bad)), "is an input"),
        ((str(bad), "--serve", "--output", "x.html"), "--serve"),
    ):
        done = run_here("-m", "arbor", "view", *words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "bad.html").exists()


# --- the server


@contextmanager
def serving(*paths: Path) -> Iterator[PageServer]:
    with PageServer([Followed(path, graded=True) for path in paths], 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server: PageServer, path: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers), timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_server_shows_what_a_running_search_has_appended(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", plain("Q1", "1", "1"))
    with serving(path) as server:
        status, body = get(server, "index")
        index = json.loads(body)
        assert status == 200 and len(index["files"][0]["entries"]) == 1
        assert get(server, f"index?have={index['version']}") == (204, b"")
        line = json.dumps(plain("Q2", "2", "2"))
        with path.open("a") as file:
            file.write(line[:40])
            file.flush()
            assert get(server, f"index?have={index['version']}")[0] == 204  # half a line
            file.write(line[40:] + "\n")
        later = json.loads(get(server, f"index?have={index['version']}")[1])
        assert [one["question"] for one in later["files"][0]["entries"]] == ["Q1", "Q2"]
        assert json.loads(get(server, "question/0/1")[1])["record"] == plain("Q2", "2", "2")


def test_the_server_notices_that_a_finished_search_put_its_lines_in_order(tmp_path: Path) -> None:
    writer = TreeWriter(tmp_path / "trees.jsonl", "same")
    writer.open(resume=False)
    for index in (1, 0):
        writer.append(
            index, plain(f"Q{index}", "1", "1") | {"meta": {"index": index, "fingerprint": "same", "seed": 0}}
        )
    with serving(writer.path) as server:
        before = json.loads(get(server, "index")[1])
        writer.finish()
        after = json.loads(get(server, f"index?have={before['version']}")[1])
        assert [one["question"] for one in after["files"][0]["entries"]] == ["Q0", "Q1"]
        assert after["generation"] != before["generation"]
        assert json.loads(get(server, "question/0/0")[1])["record"]["question"] == "Q0"


def test_the_server_answers_this_machine_only(tmp_path: Path) -> None:
    with serving(write(tmp_path / "trees.jsonl", plain("Q1", "1", "1"))) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert get(server, "", Host="attacker.example")[0] == 403
        assert get(server, "question/0/0", Host=f"attacker.example:{server.server_port}")[0] == 403
        for path in ("question/0/7", "question/9/0", "question/-1/0", "question/0/..%2f..", "../../etc/passwd", "x"):
            get(server, "index")
            assert get(server, path)[0] == 404
        assert b"connect-src 'self'" in get(server, "")[1]


def test_a_line_that_is_no_tree_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", plain("Q1", "1", "1"), {"react": {}})
    with serving(path) as server:
        status, body = get(server, "index")
    assert status == 500 and b"trees.jsonl:2: no root" in body

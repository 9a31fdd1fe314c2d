"""The page as one file: the viewer, and for every question a block of data that is unpacked when it is chosen."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from arbor.view.entries import Json, read_items, score
from eval.report.compare import pair_up, paired_test
from mcts.errors import UserError
from mcts.jsonl import write_whole
from mcts.trees.node import FAILURES

VIEWER = Path(__file__).parent / "viewer.html"
HEAD, DATA = "<!--head-->", "<!--data-->"


def write_page(paths: Sequence[Path], output: Path, *, graded: bool = True) -> None:
    """Writes the page of one tree file, or of two side by side. Raises UserError.

    A block holds the base64 of gzip of JSON, so no text of a tree can end it, and the browser unpacks a question only
    when it is chosen.
    """
    before, after = viewer().split(DATA)
    with write_whole(output) as file:
        file.write(before.encode())
        files = [_write_blocks(at, path, file, graded=graded) for at, path in enumerate(paths)]
        file.write(_block("index", make_index(files)))
        file.write(after.encode())


def viewer() -> str:
    return VIEWER.read_text(encoding="utf-8")


def _write_blocks(at: int, path: Path, file: IO[bytes], *, graded: bool) -> tuple[str, list[Json]]:
    entries = []
    for number, item in enumerate(read_items(path, graded=graded)):
        entries.append(item.entry)
        file.write(_block(f"q{at}-{number}", item.detail))
    return path.name, entries


def make_index(files: Sequence[tuple[str, list[Json]]]) -> Json:
    """What the page needs at its start. files: name and entries of each. Raises UserError where two share nothing."""
    shown = []
    for name, entries in files:
        accuracy = score(entries)
        shown.append({"name": name, "entries": entries, "score": asdict(accuracy) if accuracy else None})
    index: Json = {"files": shown, "failures": FAILURES, "pairs": None, "test": None}
    if len(files) == 2:
        (first, a), (second, b) = files
        index["pairs"] = pair_up([one["question"] for one in a], [one["question"] for one in b])
        if not index["pairs"] and a and b:
            raise UserError(f"{first} and {second} have no question in common; expected two searches of one file")
        both = [(a[i], b[j]) for i, j in index["pairs"] if a[i]["answer"] or b[j]["answer"]]
        if both and all(one["verdict"] != "ungraded" for pair in both for one in pair):
            right = [tuple(one["verdict"] == "right" for one in pair) for pair in both]
            index["test"] = asdict(paired_test([one[0] for one in right], [one[1] for one in right]))
    return index


def _block(name: str, data: Json) -> bytes:
    return b'<script type="application/gzip" id="%s">%s</script>\n' % (name.encode(), base64.b64encode(pack(data)))


def pack(data: Json) -> bytes:
    """JSON that a browser reads, compressed."""
    return gzip.compress(encode(data), compresslevel=6, mtime=0)


def encode(data: Json) -> bytes:
    """JSON in ASCII. Numbers that JSON has no word for become texts."""
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_finite(data), allow_nan=False, separators=(",", ":")).encode()


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data

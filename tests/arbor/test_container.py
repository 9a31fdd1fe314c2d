"""What the Dockerfile takes from the checkout is there, and nothing that it needs is kept from it."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sources = [word for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.MULTILINE) for word in line.split()]
    assert "requirements.txt" in sources and "." in sources
    for name in (*sources, "pyproject.toml", "README.md", "arbor", "mcts", "models", "eval", "configs"):
        assert (ROOT / name).exists(), name
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in ignored), name


def test_what_is_installed_is_named_by_the_checkout() -> None:
    for name in re.findall(r"-r (\S+)", TEXT):
        assert re.search(rf"^COPY .*\b{re.escape(name)}\b", TEXT, re.MULTILINE), name
    (torch,) = re.findall(r"^torch==\S+$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert "grep '^torch==' requirements.txt" in TEXT and torch
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", TEXT, re.MULTILINE)
    assert "arbor" in entry and re.search(
        r'^arbor = "', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )

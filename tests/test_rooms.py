"""What each room may import (CONTRIBUTING.md), read from the source: lazy imports count, types alone do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINES = {"torch", "transformers", "vllm", "llama_cpp", "peft", "accelerate"}
FORBIDDEN = {
    "mcts": ENGINES | {"models", "eval", "arbor", "scripts", "sympy"},
    "models": {"arbor", "scripts"},
    "eval": ENGINES | {"models", "arbor", "scripts"},
}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import, those under TYPE_CHECKING left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name.partition(".")[0]) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]
        else:
            yield from imported(node)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_that_stands_above_it(room: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if name in FORBIDDEN[room]
    ]
    assert not found

"""Fenced blocks and the programs that they make."""

from __future__ import annotations

import pytest

from mcts.interpreter import ForkInterpreter
from mcts.interpreter.fences import blocks, program


@pytest.mark.parametrize(
    ("text", "bodies"),
    [
        ("```python\na = 1\n```", ["a = 1"]),
        ("say\n~~~ Python3\na\n~~~\nand\n```` py\nb\n````\n", ["a", "b"]),
        ("```\na\n", ["a\n"]),
        ("```python\ns = '''\n```\n'''\nprint(s)\n```\nmore", ["s = '''\n```\n'''\nprint(s)"]),
        ('```python\ns = """\n```python\n1\n```\n"""\n```', ['s = """\n```python\n1\n```\n"""']),
        ("```python\na = (\n```\nthen\n```python\nb\n```", ["a = (", "b"]),
        ("1. do\n   ```python\n   if 1:\n       a\n   ```", ["if 1:\n    a"]),
        ("````\n```\na\n```\n````", ["```\na\n```"]),
        ("an inline ```a``` is none", []),
    ],
)
def test_blocks_end_at_their_own_fence(text: str, bodies: list[str]) -> None:
    assert [block.body for block in blocks(text)] == bodies
    assert all(text[block.start :].lstrip()[0] in "`~" for block in blocks(text))


@pytest.mark.parametrize(
    ("label", "python"),
    [("python", True), ("Python3", True), (" PYTHON", True), ("py", True), ("{.python .numberLines}", True),
     ("ipython", True), ("tool_code", True), ("python-repl", True), ("", False), ("pyramid", False), ("ruby", False)],
)  # fmt: skip
def test_what_calls_itself_python_is_python(label: str, python: bool) -> None:
    (block,) = blocks(f"```{label}\na\n```")
    assert block.python is python


@pytest.mark.parametrize(
    ("code", "whole"),
    [
        ("```python\nx = 4\n```\nThen:\n```python\nprint(x)\n```", "x = 4\nprint(x)"),
        ("```python\nx = 4\n```\nIt prints\n```output\n5\n```", "x = 4"),
        ("s = '''\n```\n'''\nprint(s)", "s = '''\n```\n'''\nprint(s)"),
        ("I run:\n```python\nx\n```", "x"),
        ("```output\nx\n```", "x"),
        ("x = 4", "x = 4"),
    ],
)
def test_the_program_of_a_snippet_is_all_that_runs(code: str, whole: str) -> None:
    assert program(code) == whole


@pytest.mark.parametrize(
    ("code", "observation"),
    [
        ("```python\nx = 40\n```\nand then\n```\nprint(x + 2)\n```", "42"),
        ("  x = 40\n  if x:\n      print(x)", "40"),
        ("    s = '''\nnot indented'''\n    print(s)", "not indented"),
        ("\n\n  print(1)\n  print(2)", "1: 1\n2: 2"),
        ("```python\ntext = '''\n```\n'''\nprint(len(text))\n```", "5"),
        ("print(42)\nexit()", "42"),
        ("import sys\nprint(1)\nprint(2)\nsys.exit(0)\nprint(3)", "1: 1\n2: 2"),
        ("print(42)\nraise SystemExit", "42"),
        ("print(42)\nexit(1)", "SystemExit: 1"),
        ("exit()", "SystemExit: None"),
        ("  x = 1\n y = 2", "IndentationError: unexpected indent (<unknown>, line 1)"),
    ],
)
async def test_programs_run_as_they_are_meant(interpreter: ForkInterpreter, code: str, observation: str) -> None:
    assert (await interpreter.run(None, code)).observation == observation


async def test_the_published_rule_calls_every_exit_an_error() -> None:
    async with ForkInterpreter(profile="tora", preload=()) as published:
        assert (await published.run(None, "print(42)\nexit(0)")).observation == "SystemExit: 0"

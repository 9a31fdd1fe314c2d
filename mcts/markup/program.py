"""The program in a step of prose: fenced blocks whatever their label, tagged code, and tool calls in JSON."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcts.interpreter.fences import Block, blocks, is_program, parse

_TAGGED = re.compile(
    r"<(tool_call|code|python|execute|interpreter)>(?P<body>(?:(?!<\1>).)*?)</\1>|<\|python_tag\|>(?P<tail>.*)\Z",
    re.DOTALL,
)
_PYTHON_TOOL = re.compile(r"python|code|interpreter|execute|jupyter|sandbox", re.IGNORECASE)
_NAMES = ("name", "tool", "tool_name", "action", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input")
_CODE = ("code", "python", "script", "program", "source", "query", "input")
_CALL = re.compile(
    r"[\"'](?:name|tool|tool_name|action|function)[\"']\s*:\s*[\"'{]"
    r".{0,400}?[\"'](?:arguments|parameters|args|code|\w*input)[\"']\s*:",
    re.DOTALL,
)
_TRIED_OBJECTS = 64
_OBJECT = re.compile(r"\{\s*\"")
_DECODER = json.JSONDecoder(strict=False)
_ACTS = (ast.Call, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With)


@dataclass(frozen=True)
class Program:
    """The code of a step.

    code: all that runs, "" where there is none. last: the text of the block or call that ends it.
    unrunnable: there is no code, but something that had to run: another language, another tool, a block that is open.
    """

    code: str = ""
    last: str = ""
    unrunnable: bool = False


def read_program(text: str, complete: bool = False) -> Program:
    """The program in a text. complete: a block that is still open where the text ends is whole."""
    found = list(blocks(text))
    whole = [block for block in found if block.closed or complete]
    run = [(block, code) for block in whole if (code := _block_code(block))]
    if run:
        last = run[-1][0]
        return Program("\n".join(f"{code}\n" for _, code in run), text[last.start : last.end])
    asked = [(match[0], match["body"] or match["tail"] or "") for match in _TAGGED.finditer(text)]
    asked = asked or [(call, call) for call in _calls(text)]
    calls = [(call, code) for call, body in asked if (code := _tagged_code(body))]
    if calls:
        return Program("\n".join(f"{code}\n" for _, code in calls), calls[-1][0].rstrip())
    shown = all((block.display or not block.label) and not _CALL.search(block.body) for block in found)
    return Program(unrunnable=bool(asked) or len(whole) < len(found) or not shown or bool(_CALL.search(text)))


def _calls(text: str) -> Iterator[str]:
    """The JSON objects in a text that call a tool."""
    at = 0
    for _ in range(_TRIED_OBJECTS):
        if (start := _OBJECT.search(text, at)) is None:
            return
        at = start.end()
        try:
            call, at = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        if "code" in call or _CALL.search(text, start.start(), at):
            yield text[start.start() : at]


def _block_code(block: Block) -> str:
    """The code of a block, "" where it is none. A label that says what another language is may be wrong."""
    if code := _call_code(block.body):
        return code
    if block.python:
        return block.body if block.body.strip() else ""
    return block.body if not block.output and _acts(block.body) else ""


def _tagged_code(body: str) -> str:
    body = body.strip("\n")
    return _call_code(body) or (body if _acts(body) else "")


def _acts(code: str) -> bool:
    """Whether a text is a Python program that does something: a formula or a table does not."""
    return is_program(code) and any(isinstance(node, _ACTS) for part in parse(code) for node in ast.walk(part))


def _call_code(text: str) -> str:
    """The code in a JSON call of a Python tool, "" in any other text."""
    call = _json(text)
    if isinstance(call, list) and len(call) == 1:
        call = call[0]
    if not isinstance(call, Mapping):
        return ""
    call = call["function"] if isinstance(call.get("function"), Mapping) else call
    name, given = _first(call, _NAMES), _first(call, _ARGUMENTS)
    given = call if given is None else given
    if isinstance(given, str) and isinstance(inner := _json(given), Mapping):
        given = inner
    code = _first(given, _CODE) if isinstance(given, Mapping) else given
    if not isinstance(code, str) or not code.strip():
        return ""
    named = isinstance(name, str) and _PYTHON_TOOL.search(name)
    return code if named or (name is None and is_program(code)) else ""


def _json(text: str) -> Any:
    text = text.strip()
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _first(call: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((call[key] for key in keys if key in call), None)

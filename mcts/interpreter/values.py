"""States that are values only: no process is kept for them.

A snippet that does nothing but compute with numbers, texts, lists and dictionaries has no effect besides its output and
the variables that it leaves. It runs in a host, a process that many states share, on a copy of its state's variables;
what it leaves is the new state, a few bytes. What is not plainly of that kind is not run here (`NOT_HERE`), but in a
process of its own. The host decides that, which has never run anything else; no name, attribute or statement that it
lets pass reaches an object that outlives the snippet and can be changed. Standard library only: runs in the sandbox.

Not covered: a set, an iterator or a function with defaults or of `def` among the variables; such snippets run twice.
"""

from __future__ import annotations

import ast
import builtins
import marshal
import math
import os
import re
import socket
import types
from collections.abc import Callable
from typing import Any, NoReturn

from mcts.interpreter.fences import parse, program

LARGEST_STATE_BYTES = 16_384
MOST_OBJECTS = 2048
DEEPEST = 8  # containers in containers
PACKET_BYTES = 200_000
NOT_HERE = b"-"
NO_VALUES = marshal.dumps(({}, {}, {}))

NOT_PLAIN = re.compile(
    r"[\0\ud800-\udfff]|__|\b(?:def|class|try|with|raise|del|global|sympy|numpy)\b"
    r"|^[ \t]*(?:from|import)\s+(?!math\b)", re.MULTILINE,
)  # fmt: skip
LONGEST = 4000  # characters of code
_NODES = """
Add Assert Assign Attribute AugAssign BinOp BitAnd BitOr BitXor BoolOp Break Call Compare Constant Continue Dict
DictComp Div And Eq Expr FloorDiv For FormattedValue GeneratorExp Gt GtE If IfExp Import ImportFrom In Invert JoinedStr
LShift Lambda List ListComp Load Lt LtE Mod Mult Name Not NotEq NotIn Or Pass Pow RShift Set SetComp Slice Starred Store
Sub Subscript Tuple UAdd USub UnaryOp While alias arg arguments comprehension keyword
"""
_FUNCTIONS = """
abs all any bin bool chr complex dict divmod enumerate filter float hex int len list map max min oct ord pow print range
repr reversed round set sorted str sum tuple zip
"""
_METHODS = """
add append clear conjugate copy count difference discard endswith extend find get imag index insert intersection isalpha
isdigit items join keys lower lstrip pop real remove replace reverse rstrip sort split startswith strip title union
update upper values zfill
"""
_KEYWORDS = "base default end key ndigits reverse sep start strict"
NODES = frozenset(getattr(ast, name) for name in _NODES.split())
FUNCTIONS, KEYWORDS = _FUNCTIONS.split(), frozenset(_KEYWORDS.split())
ATTRIBUTES = frozenset(_METHODS.split()).union(name for name in vars(math) if not name.startswith("_"))
ELSEWHERE = frozenset(vars(builtins)).union(("exit", "quit")).difference(FUNCTIONS)
MATHS = {id(one): name for name, one in vars(math).items()}
CONSTANTS = int, float, complex, bool, str, type(None)


def may_be_plain(code: str) -> bool:
    """A quick look from outside."""
    return len(code) <= LONGEST and not NOT_PLAIN.search(code)


def is_plain(code: str) -> bool:
    """Whether a snippet only computes. One that is no program does nothing."""
    try:
        body = parse(program(code))
    except (SyntaxError, ValueError):
        return True
    except (RecursionError, MemoryError):
        return False
    return all(type(node) in NODES and _is_plain_node(node) for statement in body for node in ast.walk(statement))


def _is_plain_node(node: ast.AST) -> bool:
    match node:
        case ast.arguments():
            return not node.defaults and not any(node.kw_defaults)
        case ast.Name(name) | ast.arg(name):
            return name not in ELSEWHERE and not name.startswith("__")
        case ast.alias(name, alias):
            return name in ("math", *ATTRIBUTES) and (alias is None or _is_plain_node(ast.Name(alias)))
        case ast.Constant(value):
            return type(value) in CONSTANTS
        case ast.Attribute(_, name, context):
            return name in ATTRIBUTES and isinstance(context, ast.Load)
        case ast.keyword(name):
            return name in KEYWORDS
        case ast.Import(names):
            return all(one.name == "math" for one in names)
        case ast.ImportFrom(module, _, level):
            return module == "math" and not level
    return True


def load(values: bytes, namespace: dict[str, Any]) -> None:
    """Put the variables of a state into a namespace, whose `__builtins__` its functions will use."""
    variables, borrowed, functions = marshal.loads(values)
    namespace.update(variables)
    namespace.update((name, getattr(math, what) if what else math) for name, what in borrowed.items())
    namespace.update((name, types.FunctionType(code, namespace)) for name, code in functions.items())


def save(variables: dict[str, Any]) -> bytes | None:
    """What `load` makes equal variables of, the same object behind the same names; None where it could not."""
    own: dict[str, Any] = {}
    borrowed: dict[str, str] = {}
    functions: dict[str, types.CodeType] = {}
    room = [MOST_OBJECTS]
    for name, value in variables.items():
        own[name] = None  # each keeps its place among them
        if _is_value(value, DEEPEST, room):
            own[name] = value
        elif (what := "" if value is math else MATHS.get(id(value))) is not None:
            borrowed[name] = what
        elif type(value) is types.FunctionType and not value.__closure__ and value.__code__ not in functions.values():
            functions[name] = value.__code__
        else:
            return None
    saved = marshal.dumps((own, borrowed, functions))
    return saved if len(saved) <= LARGEST_STATE_BYTES else None


def _is_value(value: Any, depth: int, room: list[int]) -> bool:
    """Whether it can be saved, and there is room for it. Sets cannot: the order of their elements has a history."""
    kind = type(value)
    room[0] -= 1
    if kind is str or kind is int:
        return (len(value) if kind is str else value.bit_length()) <= LARGEST_STATE_BYTES
    if kind in CONSTANTS:
        return True
    if kind not in (list, tuple, dict) or depth == 0 or len(value) > room[0]:
        return False
    items = [one for pair in value.items() for one in pair] if kind is dict else value
    return all(_is_value(one, depth - 1, room) for one in items) and room[0] >= 0


def host(channel: socket.socket, run: Callable[[str, dict[str, Any]], tuple[str, bool, float]]) -> NoReturn:
    """Run snippets, each on the values that come with it, until the manager closes the channel."""
    allowed = {name: getattr(builtins, name) for name in (*FUNCTIONS, "__import__")}
    channel.send(str(os.getpid()).encode())
    channel.send(b"False 0 False\n")
    while packet := channel.recv(PACKET_BYTES):
        code, _, values = packet.partition(b"\0")
        answer = NOT_HERE
        if is_plain(code.decode()):
            namespace: dict[str, Any] = {"__builtins__": dict(allowed), "__name__": "__main__"}
            load(values, namespace)
            observation, failed, seconds = run(code.decode(), namespace)
            saved = save({name: value for name, value in namespace.items() if not name.startswith("__")})
            if saved is not None:
                said = observation.encode("utf-8", "backslashreplace")
                answer = f"{failed} {seconds} False {len(said)}\n".encode() + said + saved
        channel.send(answer)
    os._exit(0)

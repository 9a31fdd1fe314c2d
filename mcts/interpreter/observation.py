"""How a snippet runs and what the model reads of it. Runs inside the sandbox: standard library only.

Profiles: `alphamath` (the published rules), `tora` (the published rules of ToRA), `arbor` (`alphamath`, but what was
printed before an error is kept in front of it, and the value of a last expression is cut like printed text).
A snippet that printed something and ends itself with `exit()` or `sys.exit(0)` has ended well; under `tora` this is an
error, as published.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mcts.interpreter.fences import parse, program

KEPT_BYTES = 16_384  # of captured output, at either end
TIMEOUT = "TimeoutError: the snippet ran longer than {:g} seconds"
TIMEOUTS = {"alphamath": TIMEOUT, "arbor": TIMEOUT, "tora": "Timeout Error"}  # {}: the limit

EXIT_IS_AN_ERROR = frozenset({"tora"})


class Capture(io.RawIOBase):
    """The first and the last `KEPT_BYTES` bytes of what is written, however much that is."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tail = bytearray(), bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        room = KEPT_BYTES - len(self.head)
        self.head += data[:room]
        if len(data) > room:
            self.tail += data[max(room, len(data) - KEPT_BYTES) :]
            del self.tail[: -8 * KEPT_BYTES]
        return len(data)

    def take(self) -> str:
        """What was written since the last call, by the snippet's standard output too."""
        with contextlib.suppress(ValueError, OSError, AttributeError):  # closed, or replaced
            sys.stdout.flush()
        data = bytes(self.head + self.tail)
        self.head, self.tail = bytearray(), bytearray()
        return data.decode("utf-8", "replace")


@dataclass
class Outcome:
    """What a snippet left behind.

    pieces: (printed expressions, text) in order; expressions are None for what no top-level print wrote.
    prints: number of top-level prints. value: of the last expression, as text.
    """

    pieces: list[tuple[str | None, str]] = field(default_factory=list)
    prints: int = 0
    value: str | None = None
    error: BaseException | None = None


def cut(text: str, limit: int) -> str:
    """The first and the last half of `limit` characters around "..." when `text` is longer than that."""
    return text if len(text) <= limit else text[: limit // 2] + "..." + text[-(limit // 2) :]


def shorten_float(text: str) -> str:
    """A number to 4 decimals, where that is not longer."""
    try:
        short = f"{float(text):.4f}"
    except ValueError:
        return text
    return short if len(short) <= len(text) else text


def printed_expressions(statement: ast.stmt) -> list[ast.expr] | None:
    """The arguments of a top-level `print(…)`, None for any other statement."""
    match statement:
        case ast.Expr(ast.Call(ast.Name("print"), arguments)):
            return arguments
    return None


def run_statements(code: str, namespace: dict[str, Any], capture: Capture, outcome: Outcome) -> None:
    """Run statement by statement, filling `outcome`. Raises whatever the snippet raises."""
    body = parse(program(code))
    prints = [printed_expressions(statement) for statement in body]
    outcome.prints = len(prints) - prints.count(None)
    try:
        for index, (statement, expressions) in enumerate(zip(body, prints, strict=True)):
            apart = expressions is not None and outcome.prints > 1
            if apart:
                outcome.pieces.append((None, capture.take()))
            if isinstance(statement, ast.Expr) and expressions is None and index == len(body) - 1:
                value = eval(compile(ast.Expression(statement.value), "<string>", "eval"), namespace)
                outcome.value = None if value is None else str.__str__(str(value))  # no subclass of str
            else:
                exec(compile(ast.Module([statement], []), "<string>", "exec"), namespace)
            if apart and expressions is not None:
                outcome.pieces.append((", ".join(map(ast.unparse, expressions)), capture.take()))
    finally:
        outcome.pieces.append((None, capture.take()))


def join(outcome: Outcome) -> str:
    """The pieces, a line each; those of several top-level prints behind what they print."""
    pieces = [(label, shorten_float(text.rstrip().lstrip("\n"))) for label, text in outcome.pieces]
    return "\n".join(
        text if label is None else f"{label}: {text}" for label, text in pieces if text or label is not None
    )


def ended_well(error: BaseException) -> bool:
    """Whether a snippet ended itself, and said that nothing is wrong."""
    return type(error) is SystemExit and (error.code is None or (type(error.code) is int and error.code == 0))


def describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type.__dict__['__name__'].__get__(type(error))}: (it does not say what went wrong)"


def alphamath(outcome: Outcome, value_limit: int = 4000) -> str:
    if outcome.error is not None:
        return cut(describe(outcome.error), 500)
    value = outcome.value if outcome.value is not None and not outcome.prints else ""
    return "\n".join(part for part in (cut(join(outcome), 500), cut(value, value_limit)) if part)


def arbor(outcome: Outcome) -> str:
    if outcome.error is None:
        return alphamath(outcome, 500)
    return cut("\n".join(part for part in (join(outcome), describe(outcome.error)) if part), 500)


def tora(outcome: Outcome) -> str:
    if outcome.error is not None:
        return cut(traceback.format_exception_only(outcome.error)[-1].strip().split("\n")[-1], 400)
    printed = "".join(text for _, text in outcome.pieces).strip()
    return cut(printed or (outcome.value or "Done").strip(), 400)


PROFILES: dict[str, Callable[[Outcome], str]] = {"alphamath": alphamath, "arbor": arbor, "tora": tora}


def observe(code: str, namespace: dict[str, Any], capture: Capture, profile: str) -> tuple[str, bool]:
    """Run `code` in `namespace`; the observation, and whether the snippet raised."""
    outcome = Outcome()
    try:
        run_statements(code, namespace, capture, outcome)
    except BaseException as error:
        if profile in EXIT_IS_AN_ERROR or not (ended_well(error) and join(outcome)):
            outcome.error = BaseException.with_traceback(error, None)
    return PROFILES[profile](outcome), outcome.error is not None

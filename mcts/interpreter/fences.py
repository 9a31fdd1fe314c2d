"""Fenced blocks in a text, and the program that they make. Standard library only: it also runs inside the sandbox."""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

_OPENING = re.compile(r"[ \t]*(?P<mark>`{3,}(?=[^`\n]*$)|~{3,})[ \t]*(?P<label>[^\n]*)$")
_PYTHON = re.compile(r"(?:i?py(?:thon)?|pycon|sage|sympy|tool_code|code|jupyter)[\d.]*(?:[-_:]\w+)*", re.IGNORECASE)
_OUTPUT = re.compile(r"outputs?|results?|stdout")
_DISPLAY = re.compile(rf"{_OUTPUT.pattern}|text|txt|plain|plaintext|latex|tex|math|json|markdown|md")
TRIED_FENCES = 8  # lines that could close a block
PARSED_CHARACTERS = 50_000  # a longer text is not parsed to find its end


@dataclass(frozen=True)
class Block:
    """A fenced block. start, end: where it lies in the text, fences included (`end` before the line break).

    label: the first word behind the opening fence, in lower case. closed: a closing fence was found.
    """

    label: str
    body: str
    start: int
    end: int
    closed: bool

    @property
    def python(self) -> bool:
        """Whether the label says that the body is Python."""
        return bool(_PYTHON.fullmatch(self.label))

    @property
    def output(self) -> bool:
        """Whether the label says that the body is what a program printed."""
        return bool(_OUTPUT.fullmatch(self.label))

    @property
    def display(self) -> bool:
        """Whether the label says that the body is shown, not run."""
        return bool(_DISPLAY.fullmatch(self.label))


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a text, in order.

    A fence is three or more backticks or tildes on a line of their own, indented or not; the closing one is of the same
    kind, not shorter, and has no label. A line of backticks inside a string does not close a block: of several lines
    that could, the first counts behind which the body is a program, else the first. The opening fence's indentation is
    taken off every line of the body.
    """
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    at = 0
    while at < len(lines):
        opening = _OPENING.match(lines[at])
        if opening is None:
            at += 1
            continue
        closing = re.compile(rf"[ \t]*{opening['mark'][0]}{{{len(opening['mark'])},}}[ \t]*\r?")
        end = _closing(lines, at + 1, closing)
        indent = len(lines[at]) - len(lines[at].lstrip())
        body = "\n".join(_outdent(line, indent) for line in lines[at + 1 : end])
        label = re.sub(r"[{}.\s]+", " ", opening["label"]).strip().partition(" ")[0].lower()
        closed = end < len(lines)
        yield Block(label, body, starts[at], starts[min(end + 1, len(lines))] - 1, closed)
        at = end + 1


def _closing(lines: list[str], first: int, closing: re.Pattern[str]) -> int:
    """The line that closes a block whose body begins at line `first`; the number of lines where none does."""
    fences = (at for at in range(first, len(lines)) if closing.fullmatch(lines[at]))
    candidates = list(itertools.islice(fences, TRIED_FENCES))
    if len(candidates) > 1:
        for at in candidates:
            body = "\n".join(lines[first:at])
            if len(body) > PARSED_CHARACTERS:
                break
            if not body.strip() or is_program(body):
                return at
    return candidates[0] if candidates else len(lines)


def _outdent(line: str, indent: int) -> str:
    """The line without up to `indent` characters of white space in front."""
    return line[min(indent, len(line) - len(line.lstrip())) :]


def is_program(code: str) -> bool:
    """Whether Python can compile the text. A long one is not tried."""
    if len(code) > PARSED_CHARACTERS:
        return False
    try:
        parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def parse(code: str) -> list[ast.stmt]:
    """The statements of a program, also of one that is indented as a whole. Raises what `ast.parse` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code).body
        except IndentationError:
            first = next((line for line in code.split("\n") if line.strip()), "")
            if not first[:1].isspace():
                raise
            try:
                outer = ast.parse(f"if 1:\n{code}").body
            except SyntaxError:
                outer = []
            if len(outer) != 1 or not isinstance(outer[0], ast.If):
                raise
            return outer[0].body


def program(text: str) -> str:
    """The code in a text: its blocks, one after another; a text that has none, or is a program as it is, unchanged.

    Blocks that only show something (output, text) are left out, unless there are no others.
    """
    found = list(blocks(text))
    if not found or (not _OPENING.match(text.lstrip().partition("\n")[0]) and is_program(text)):
        return text
    run = [block for block in found if not block.display] or found
    return "\n".join(block.body for block in run)

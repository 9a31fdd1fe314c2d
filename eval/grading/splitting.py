"""Texts split at separators outside brackets."""

from __future__ import annotations

import re

_DEPTH = re.compile(r"\\begin\{\w+\}|\\end\{\w+\}|\\[{}]|\\langle(?![a-zA-Z])|\\rangle(?![a-zA-Z])|\\\\|[({\[\])}]")
_OPEN = {"(", "[", "{", "\\{", "\\langle"}


def split_top(text: str, separator: str) -> tuple[list[str], list[str]]:
    """The parts of a text between separators (a pattern) outside brackets, and the separators themselves."""
    spans, depth = [], 0
    for match in re.compile(f"(?P<separator>{separator})|{_DEPTH.pattern}").finditer(text):
        token = match.group()
        if match["separator"] is not None:
            if depth == 0 and match.end() > match.start():
                spans.append(match.span())
        elif token != "\\\\":
            depth += 1 if token in _OPEN or token.startswith("\\begin") else -1
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    parts = [text[start:end].strip() for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return parts, [text[start:end].strip() for start, end in spans]


_GROUPED = re.compile(r"[^\d,]*[1-9]\d{0,2}(?:,\d{3})+(?!\d)[^,]*")


def split_commas(text: str) -> list[str]:
    if _GROUPED.fullmatch(text):
        return [text]
    grouped = re.search(r",\s", text) and re.search(r"(?<=\d),\d{3}(?!\d)", text)
    parts, _ = split_top(text, r",(?=\s)" if grouped else r",")
    return [part for part in parts if part]


def balanced(text: str) -> bool:
    """Whether every bracket that opens is closed, in whatever style (half-open intervals mix two)."""
    depth = 0
    for match in _DEPTH.finditer(text):
        token = match.group()
        depth += 0 if token == "\\\\" else 1 if token in _OPEN or token.startswith("\\begin") else -1
        if depth < 0:
            return False
    return depth == 0

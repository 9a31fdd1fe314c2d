"""The one error of bad input, and the help that its message gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, what would be right. Commands exit with 2."""


def nearest(key: str, known: Iterable[str]) -> str:
    """What an error message says of the known name that `key` may stand for, if there is one."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""

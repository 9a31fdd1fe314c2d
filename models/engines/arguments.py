"""`engine_args` of a configuration → the settings of an engine: a frozen dataclass with defaults, one field a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mcts.errors import UserError

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], engine: str, args: Mapping[str, Any]) -> Settings:
    """`kind(**args)`. Raises UserError for a key that it has not, or a value of another type than the default's."""
    known = {name: type(default) for name, default in vars(kind()).items()}
    for key, value in args.items():
        if key not in known:
            raise UserError(f"engine_args: {engine} has no {key!r}; it has {', '.join(known)}")
        if type(value) is not known[key] and not (known[key] is float and type(value) is int):
            raise UserError(f"engine_args: {key}: expected {known[key].__name__}, found {value!r}")
    return kind(**args)

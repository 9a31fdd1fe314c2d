"""Registries: what a name in a configuration stands for, from this package, from a decorator or from an entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from mcts.errors import UserError, nearest

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Name → entry. An entry is an object that says what the named thing can do, so nobody compares names.

    kind: what the entries are, for error messages ("search method"). group: the entry point group that other packages
    fill. own: the entries of this package, each "module:attribute", imported when it is first asked for.
    An entry that is registered under a name in use replaces it.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._places = dict(own)
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def add(self, name: str, entry: Entry) -> Entry:
        """Registers `entry` under `name` and returns it."""
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that registers what it decorates."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> Entry:
        """Raises UserError for an unknown name and for one whose module cannot be imported."""
        if name not in self._entries and name not in self._places:
            self._discover()
        if name not in self._entries:
            if name not in self._places:
                known = ", ".join(sorted(self))
                raise UserError(f"unknown {self.kind} {name!r}{nearest(name, self)} (known: {known})")
            self._entries[name] = self._load(name)
        return self._entries[name]

    def _load(self, name: str) -> Entry:
        module, _, attribute = self._places[name].partition(":")
        try:
            entry: Entry = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{self.kind} {name!r}: {self._places[name]} cannot be imported: {error}") from None
        return entry

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            for point in entry_points(group=self.group):
                self._places.setdefault(point.name, point.value)

    def __contains__(self, name: object) -> bool:
        if name in self._entries or name in self._places:
            return True
        self._discover()
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted({*self._places, *self._entries}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

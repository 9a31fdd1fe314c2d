"""The bounds of the sandbox in one place; `code_limits` of a configuration sets them by these names."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What a snippet, a state and all states together may use. Raises ValueError for a bound that is not positive."""

    timeout_seconds: float = 15.0
    """Wall time of a snippet; its processor time is bounded by 2 s more."""
    memory_bytes: int = 1 << 30
    """Of a state, beyond the preloaded modules."""
    max_states: int = 1024
    """States that keep a process. Beyond it, or when all together hold half of the machine's free memory, the least
    recently used lose theirs and are rebuilt by replay when they are needed."""
    workers: int | None = None
    """Snippets that run at the same time; None: one per core."""
    code_bytes: int = 150_000
    """Of a snippet; a longer one is refused. At most 190,000: it travels in one packet."""
    observation_characters: int = 10_000
    """Of a snippet that goes around its profile's rules."""
    folder_bytes: int = 16 << 20
    """Of all files that a state holds, and of one file."""
    folder_files: int = 256
    open_files: int = 64
    """At least 56: the sandbox's own have numbers from 48 on."""
    thread_starts: int = 64
    """Of one process."""
    refused_requests: int = 256
    """Threads and forks that a process may ask for in vain, before it is killed."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "workers" and value is None:
                continue
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (one.name == "timeout_seconds" and isinstance(value, float))) or not value > 0:
                kind = "number" if one.name == "timeout_seconds" else "whole number"
                raise ValueError(f"{one.name}: expected a {kind} above 0, found {value!r}")
        if self.code_bytes > 190_000 or self.open_files < 56:
            raise ValueError("code_bytes: expected at most 190000, open_files: at least 56")

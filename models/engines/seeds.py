"""Seeds for engines that draw by themselves."""

from __future__ import annotations

import hashlib


def seed_of(key: tuple[int | str, ...], index: int) -> int:
    """63 bits that depend on (key, index) alone."""
    return int.from_bytes(hashlib.blake2b(repr((key, index)).encode(), digest_size=8).digest(), "big") >> 1

"""The beginnings that the prompts of a run have in common, by content: a tree of pages over the token ids of roots.

A root leaves its pages here. Another one that begins with the same tokens takes them, to the token: of the page in
which the two part it copies the common entries. What a live root holds stays; of the rest the least recently used pages
go when there are more than `max_idle_tokens` positions, but never the beginning that was used last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Beginning:
    """A page and what it holds. live: how many kept roots go through it. used: when it was last needed."""

    parent: Beginning | None
    token_ids: tuple[int, ...]
    page: int
    live: int = 0
    used: int = 0
    children: list[Beginning] = field(default_factory=list)

    def path(self) -> Iterator[Beginning]:
        """From this page up to the first."""
        node: Beginning | None = self
        while node is not None and node.parent is not None:
            yield node
            node = node.parent


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


class Beginnings:
    """size: positions of a page. hold, release: what is done to pages that come here and go."""

    def __init__(
        self,
        size: int,
        max_idle_tokens: int,
        hold: Callable[[Sequence[int]], None],
        release: Callable[[Sequence[int]], None],
    ) -> None:
        self._size, self._max_idle = size, max_idle_tokens // size
        self._hold, self._release = hold, release
        self._root = Beginning(None, (), -1)
        self._idle: set[Beginning] = set()
        self._clock = 0

    def match(self, token_ids: Sequence[int]) -> tuple[int, list[int]]:
        """How many of the tokens begin a known root, and the pages in which their entries are."""
        found, pages = 0, []
        for node in self._walk(token_ids):
            pages.append(node.page)
            found += common(node.token_ids, token_ids[found : found + self._size])
        return found, pages

    def _walk(self, token_ids: Sequence[int]) -> Iterator[Beginning]:
        """The pages that agree with the tokens, the last of them in part; those used now."""
        self._clock += 1
        node, at = self._root, 0
        while at < len(token_ids):
            part = tuple(token_ids[at : at + self._size])
            best = max(node.children, key=lambda child: common(child.token_ids, part), default=None)
            agreed = common(best.token_ids, part) if best is not None else 0
            if best is None or not agreed:
                return
            best.used = self._clock
            yield best
            if agreed < self._size:
                return
            node, at = best, at + self._size

    def add(self, token_ids: Sequence[int], pages: Sequence[int]) -> Beginning:
        """Registers a root with its pages; the caller hands the result to `leave` when it lets the root go."""
        self._clock += 1
        node = self._root
        for at, page in zip(range(0, len(token_ids), self._size), pages, strict=False):
            part = tuple(token_ids[at : at + self._size])
            child = next((one for one in node.children if one.token_ids == part), None)
            if child is None:
                child = Beginning(node, part, page)
                node.children.append(child)
                self._hold([page])
            child.live += 1
            child.used = self._clock
            self._idle.discard(child)
            node = child
        return node

    def leave(self, beginning: Beginning) -> None:
        """A root is kept no longer."""
        for node in beginning.path():
            node.live -= 1
            if not node.live:
                self._idle.add(node)
        while len(self._idle) > self._max_idle:
            ends = [node for node in self._idle if not node.children]
            oldest = min(ends, key=lambda node: node.used)
            if oldest.used == max(node.used for node in self._idle):
                break
            self._idle.remove(oldest)
            assert oldest.parent is not None
            oldest.parent.children.remove(oldest)
            self._release([oldest.page])

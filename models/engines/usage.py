"""Token usage by question, for engines that count a request when it is done."""

from __future__ import annotations

import weakref

from mcts.model import Context, Usage


class UsageCounter:
    """totals: everything since the engine was made."""

    def __init__(self) -> None:
        self.totals = Usage()
        self._of: weakref.WeakKeyDictionary[Context, Usage] = weakref.WeakKeyDictionary()

    def usage(self, root: Context) -> Usage:
        """What was done for all prompts that begin with `root`."""
        return self._of.get(root, Usage())

    def count(
        self,
        context: Context,
        *,
        prompt: int = 0,
        reused: int = 0,
        decoded: int = 0,
        generated: int = 0,
        prefill_seconds: float = 0.0,
        decode_seconds: float = 0.0,
    ) -> None:
        """Adds a request. reused: prompt tokens from kept entries; decoded: generated tokens that were fed back."""
        *_, root = context.segments()
        for usage in (self._of.setdefault(root, Usage()), self.totals):
            usage.prompt_tokens += prompt
            usage.tokens_reused += reused
            usage.tokens_computed += prompt - reused + decoded
            usage.tokens_generated += generated
            usage.prefill_seconds += prefill_seconds
            usage.decode_seconds += decode_seconds

"""A sample in the making: token ids as an engine draws them, until a stop string, the end of sequence or a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from mcts.errors import UserError
from mcts.model import Context, Finish, Sample
from models.engines.text import Tokenizer


@dataclass
class Drafts:
    """Starts the samples of one model. eos: the tokens that end a sequence."""

    tokenizer: Tokenizer
    eos: frozenset[int]
    _hints: dict[tuple[str, ...], dict[int, bool]] = field(default_factory=dict)

    def start(self, context: Context, stop: tuple[str, ...], limit: int) -> Draft:
        """An empty sample of `context` that may grow to `limit` tokens."""
        return Draft(self, context, stop, limit)

    def may_stop(self, stop: tuple[str, ...], token: int) -> bool:
        """Whether `token` can be the one that completes a stop string: what it begins with ends one, or with one.
        Spaces do not count: some tokenizers drop them between two tokens."""
        hints = self._hints.setdefault(stop, {})
        hint = hints.get(token)
        if hint is None:
            piece = self.tokenizer.piece(token)
            begun = {_bare(piece[:count]) for count in range(1, len(piece) + 1)}
            ends = any(one.endswith(part) or part.endswith(one) for one in map(_bare, stop) for part in begun)
            hint = hints[token] = "\ufffd" in piece or ends
        return hint


@dataclass(eq=False)
class Draft:
    """See `Sample` for what the fields become."""

    drafts: Drafts
    context: Context
    stop: tuple[str, ...]
    limit: int
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    logprobs: list[float] = field(default_factory=list)

    def fork(self) -> Draft:
        """Another sample that has begun alike."""
        alike = self.drafts, self.context, self.stop, self.limit
        return Draft(*alike, [*self.token_ids], self.logprob, [*self.logprobs])

    def extend_by(self, token: int, logprob: float) -> None:
        """Adds a drawn token that ends nothing."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.logprob += logprob

    def add(self, token: int, logprob: float) -> Sample | None:
        """Adds a drawn token; the sample, if that ends it."""
        tokenizer = self.drafts.tokenizer
        if token in self.drafts.eos:
            self.logprob += logprob
            return self.finished("eos")
        self.extend_by(token, logprob)
        if self.drafts.may_stop(self.stop, token):
            raw = tokenizer.decode(self.token_ids)
            found = [(raw.find(one), one) for one in self.stop if one in raw]
            if found:
                cut, which = min(found, key=lambda hit: (hit[0], -len(hit[1])))
                return self._sample("stop", raw[:cut], which, raw[cut + len(which) :])
        return self.finished("length") if len(self.token_ids) >= self.limit else None

    def extend(self, drawn: Iterable[tuple[int, float]], finish: Finish) -> Sample:
        """Adds what an engine drew (token, log-probability) and ends there, if nothing ends the sample before."""
        for token, logprob in drawn:
            if (sample := self.add(token, logprob)) is not None:
                return sample
        return self.finished(finish)

    def finished(self, finish: Finish) -> Sample:
        """The sample as it stands, without a stop string."""
        return self._sample(finish, self.drafts.tokenizer.decode(self.token_ids), "", "")

    def _sample(self, finish: Finish, text: str, stop: str, overflow: str) -> Sample:
        if not math.isfinite(self.logprob):
            raise UserError(f"the model gives {self.logprob} as a log-probability: its weights or activations overflow")
        ids = tuple(self.token_ids)
        ends = self.drafts.tokenizer.ends(ids, text + stop + overflow)
        context, each = Context(self.context, ids), tuple(self.logprobs)
        return Sample(ids, text, self.logprob, finish, stop, overflow, ends, context, each)


def _bare(text: str) -> str:
    return "".join(text.split())

"""What is asked of the engine, and the rows that come of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mcts.model import Context, Expansion, Sample, Sampling, Usage
from models.engines.draft import Draft
from models.engines.sampling import Style
from models.engines.transformers.kv import Chain
from models.engines.transformers.pieces import Paged, Piece


@dataclass(eq=False)
class Request:
    """`n` samples of a context, or its value alone (n = 0). result: set when the request is finished."""

    context: Context
    n: int = 0
    params: Sampling = field(default_factory=Sampling)
    usages: tuple[Usage, ...] = ()  # that its tokens are added to
    cancelled: bool = False
    value: float | None = None
    samples: dict[int, Sample] = field(default_factory=dict)
    decoded: int = 0  # positions computed for its rows that are not counted yet

    def count(self, *, prompt: int = 0, computed: int = 0, reused: int = 0, generated: int = 0) -> None:
        """Adds tokens to the usages."""
        for usage in self.usages:
            usage.prompt_tokens += prompt
            usage.tokens_computed += computed
            usage.tokens_reused += reused
            usage.tokens_generated += generated

    def bill(self, prefill: float, decode: float) -> None:
        """Adds seconds to the usages."""
        for usage in self.usages:
            usage.prefill_seconds += prefill
            usage.decode_seconds += decode

    @property
    def expansion(self) -> Expansion:
        return Expansion(self.value, tuple(self.samples[index] for index in range(self.n)))


@dataclass(eq=False)
class Prompt:
    """A context of this step and everybody who asked for it; they share its prefill and its row.

    chain: what is kept of it; its positions from `start` on are to be computed.
    """

    context: Context
    requests: list[Request]
    chain: Chain = field(default_factory=Chain)
    start: int = 0

    @property
    def sampled(self) -> bool:
        return any(request.n for request in self.requests)


@dataclass(eq=False)
class Member:
    """One sample in the making. since: the seconds that each sample had cost when this one began (`Batch._bill`)."""

    request: Request
    index: int
    noise: random.Random
    style: Style
    since: float = 0.0


@dataclass(eq=False)
class Row:
    """A continuation of a prompt and the samples that have it in common. draft: its tokens; own: its full pieces;
    length: its tokens in its tail; token: the next one to feed."""

    members: list[Member]
    draft: Draft
    prompt: Paged
    own: tuple[Piece, ...] = ()
    length: int = 0
    token: int = -1

    @property
    def pages(self) -> list[int]:
        return [*self.prompt.pages, *(page for piece in self.own for page in piece)]


class Branch(NamedTuple):
    """Samples of a row that drew the same token."""

    members: list[Member]
    draft: Draft
    token: int


def by_context(requests: Iterable[Request]) -> list[Prompt]:
    """The requests by context."""
    prompts: dict[Context, Prompt] = {}
    for request in requests:
        prompts.setdefault(request.context, Prompt(request.context, [])).requests.append(request)
    return list(prompts.values())


def branches_of(row: Row, tokens: Sequence[int], logprobs: Sequence[float]) -> list[tuple[Branch, float]]:
    """The samples of a row by what they drew, and its log-probability."""
    if len(tokens) == 1 or tokens.count(tokens[0]) == len(tokens):
        return [(Branch(row.members, row.draft, tokens[0]), logprobs[0])]
    members: dict[int, list[Member]] = {}
    found: dict[int, float] = {}
    for member, token, logprob in zip(row.members, tokens, logprobs, strict=True):
        members.setdefault(token, []).append(member)
        found[token] = logprob
    drafts = [row.draft, *(row.draft.fork() for _ in range(len(members) - 1))]
    return [
        (Branch(mine, draft, token), found[token]) for (token, mine), draft in zip(members.items(), drafts, strict=True)
    ]


def tail_of(context: Context, start: int) -> list[int]:
    """The token ids of a prompt from position `start` on."""
    end, parts = context.length, []
    for segment in context.segments():
        if end <= start:
            break
        end -= len(segment.token_ids)
        parts.append(segment.token_ids[max(0, start - end) :])
    return [token for part in reversed(parts) for token in part]


def packed(prompts: list[Prompt], most: int) -> list[list[list[Prompt]]]:
    """Passes of blocks of prompts: those of a block are of similar length, so that little of it is padding, and no
    pass has more than `most` tokens, if one prompt has not."""

    def missing(prompt: Prompt) -> int:
        return prompt.context.length - prompt.start

    passes: list[list[list[Prompt]]] = []
    room = 0
    for prompt in sorted(prompts, key=missing):
        tokens = missing(prompt)
        if tokens > room:
            passes.append([])
            room = most
        blocks = passes[-1]
        if not blocks or tokens > 2 * missing(blocks[-1][0]) + 32:
            blocks.append([])
        blocks[-1].append(prompt)
        room -= tokens
    return passes

"""What the search expects of a language model: the port that every engine implements.

Tokens in, tokens out. A prompt is a chain of `Context` segments; the engine may keep the key/value
entries of a segment for as long as somebody holds it, so identity, not content, is the cache key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Finish = Literal["stop", "length", "eos"]
Role = Literal["system", "user", "assistant", "tool"]


class ContextTooLong(Exception):
    """The context leaves no room for a single new token in the model's window."""


class Context:
    """An immutable prompt: a parent and the token ids that this segment adds (none is legal)."""

    __slots__ = ("__weakref__", "length", "parent", "token_ids")

    def __init__(self, parent: Context | None, token_ids: tuple[int, ...]) -> None:
        self.parent = parent
        self.token_ids = token_ids
        self.length: int = len(token_ids) + (parent.length if parent is not None else 0)

    def segments(self) -> Iterator[Context]:
        """The chain from this segment up to the root."""
        node: Context | None = self
        while node is not None:
            yield node
            node = node.parent

    def all_token_ids(self) -> list[int]:
        """Every token id of the prompt, first to last: exactly what the model sees."""
        parts = [segment.token_ids for segment in self.segments()]
        return [token for part in reversed(parts) for token in part]


@dataclass(frozen=True)
class Message:
    """A turn of a chat. What stands in the content of a user or a tool is never a control token."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns of a chat up to where the assistant writes on, laid out by the chat template of the model.

    messages: the turns. follows: they come behind what the assistant has written, whose turn is ended first; without
    messages its turn goes on.
    opening: what the assistant's turn begins with (with `follows` and no messages: goes on with), control tokens
        included; left out where the template has written it.
    template: a Jinja chat template, "": the tokenizer's own. options: further variables of the template.
    """

    messages: tuple[Message, ...]
    follows: bool = False
    opening: str = ""
    template: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The turns as a person reads them."""
        return "\n\n".join(
            [*(f"[{turn.role}]\n{turn.content}" for turn in self.messages), f"[assistant]\n{self.opening}"]
        )


@dataclass(frozen=True)
class Sampling:
    """How to draw samples. The noise of sample i is a function of (`key`, i) alone, so a sample depends
    neither on the batch it was computed in nor on the order of requests."""

    temperature: float = 0.0  # 0: the most likely token
    top_p: float = 1.0
    top_k: int = -1  # -1: no bound
    max_tokens: int = 2000
    stop: tuple[str, ...] = ()
    key: tuple[int | str, ...] = ()  # (seed, question index, run, tag)


@dataclass(frozen=True)
class Sample:
    """One continuation of a context.

    token_ids: what was drawn, the tokens of the stop string included, an end-of-sequence token left out.
    text: the text before the stop string.
    logprob: the sum of the tokens' log-probabilities, before temperature, top-p and top-k.
    stop: the stop string that ended the sample, or "".
    overflow: what the last token says beyond the stop string.
    ends: for each token the length of `text + stop + overflow` up to and including it (the bytes of one character
        all end where the character does). Empty: `token_ids` spell `text`.
    logprobs: one for each of `token_ids`; `logprob` is their sum, with that of an end-of-sequence token. Empty: the
        engine has the sum only.
    context: the segment (parent: the sampled context) that holds exactly `token_ids`, where the engine kept
        their key/value entries. A prompt built on it computes none of them again.
    """

    token_ids: tuple[int, ...]
    text: str
    logprob: float
    finish: Finish
    stop: str = ""
    overflow: str = ""
    ends: tuple[int, ...] = ()
    context: Context | None = None
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Expansion:
    """n samples of a context and the value of that context in (-1, 1), None without a value head."""

    value: float | None
    samples: tuple[Sample, ...]


@dataclass
class Usage:
    """What an engine did for one question (all contexts of one root), in tokens and seconds.

    prompt_tokens: the length of every prompt asked for, summed; of these `tokens_reused` came from kept key/value
    entries. tokens_computed: positions that went through the network. tokens_generated: sampled tokens.
    prefill_seconds, decode_seconds: the question's share of the engine's time, which is divided among the positions of
    each pass; 0 where the engine is another machine's.
    """

    prompt_tokens: int = 0
    tokens_computed: int = 0
    tokens_reused: int = 0
    tokens_generated: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


class LanguageModel(Protocol):
    """Policy and value in one. Every method may be awaited from any number of coroutines at once.

    An engine may also offer `encode_prompt(text) -> tuple[int, ...]` for the text that a prompt begins with (special
    tokens included), `encode_chat(chat: Conversation) -> tuple[int, ...]` for models with a chat template, and
    `usage(root: Context) -> Usage`.
    """

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text inside a prompt, without special tokens."""

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        """`n` samples and the value of `context`, out of one prefill. Raises ContextTooLong."""

    async def evaluate(self, context: Context) -> float:
        """The value of `context` in (-1, 1); a later `sample` uses the same prefill. Raises ContextTooLong."""

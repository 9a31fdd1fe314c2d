"""The OpenAI engine for servers of /v1/chat/completions (`engine_args: {api: chat}`): policy only.

Such a server shows no tokens and lays out turns itself. A prompt is therefore spelled in a vocabulary of our own: the
bytes of its text, and a mark where a turn begins; no text can hold a mark. Lengths in a tree are bytes then, and priors
are per byte; the usage is the server's. A reply that brings its reasoning apart becomes "<think>…</think>" and the
answer; the reasoning of earlier turns is not sent again.

A step that ends inside a turn needs a server that goes on with a message that it is sent. `continues` says how it is
asked: "message": the last message is the assistant's; "vllm": and `continue_final_message`; "prefix": and a field
`prefix`; "no": it cannot, so steps are whole turns. Not covered: streaming, tools of the server, values.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from mcts.errors import UserError
from mcts.markup.visible import visible
from mcts.model import Context, ContextTooLong, Conversation, Expansion, Finish, Role, Sample, Sampling, Usage
from models.engines.client import Client, Refused
from models.engines.openai import Settings
from models.engines.queue import Background
from models.engines.sampling import seed_of
from models.engines.usage import UsageCounter

ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")
MARKS = 256  # the first id behind the bytes
MOST_STOPS = 4  # that the interface allows
DISPENSABLE = ("logprobs", "seed", "stop")  # a server may not know them: priors are 1, noise is its own, we cut
PATH = "/chat/completions"


class Letters:
    """The vocabulary of conversations: bytes and marks of turns."""

    size = MARKS + len(ROLES)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode("utf-8", "replace"))

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(one for one in ids if one < MARKS).decode("utf-8", "replace")

    def mark(self, role: Role) -> int:
        return MARKS + ROLES.index(role)

    def ends(self, text: str) -> tuple[int, ...]:
        """For each byte of a text the number of characters up to the end of its character."""
        return tuple(at for at, sign in enumerate(text, 1) for _ in sign.encode("utf-8", "replace"))

    def turns(self, ids: Sequence[int]) -> list[tuple[Role, str]]:
        """(role, text) of every turn."""
        starts = [at for at, one in enumerate(ids) if one >= MARKS]
        ends = [*starts[1:], len(ids)]
        return [(ROLES[ids[at] - MARKS], self.decode(ids[at + 1 : end])) for at, end in zip(starts, ends, strict=True)]


class OpenAIChat:
    """`LanguageModel` over a server of chats. May be used from several event loops, one after another."""

    def __init__(self, settings: Settings) -> None:
        """Raises UserError."""
        self.settings, self.tokenizer = settings, Letters()
        self.counter = UsageCounter()
        self._thread = Background("openai")
        self._client = settings.client()
        self.close = weakref.finalize(self, _stop, self._thread, self._client)
        self._name = settings.model or self._thread.call(self._client.served(""))[0]
        self._dropped: set[str] = set()
        self._limit_key = "max_tokens"
        self._names_stops = False  # whether replies say which stop string ended them

    @classmethod
    def load(
        cls, model_dir: str | None = None, *, need_value: bool = True, engine_args: dict[str, Any] | None = None
    ) -> OpenAIChat:
        """model_dir is not used: the server has the tokenizer. Raises UserError."""
        if need_value:
            raise UserError("a server of chats gives no values: take them from rollouts, value_from: majority")
        return cls(Settings.read(engine_args or {}))

    # --- the port

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode(text)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self.encode_chat(Conversation((), opening=""), text)

    def encode_chat(self, chat: Conversation, asked: str = "") -> tuple[int, ...]:
        if chat.template:
            raise UserError("chat_template_path: a server of chats lays out turns by its own template; leave it unset")
        if chat.opening and self.settings.continues == "no":
            raise UserError(
                "thinking_tag: this server does not go on inside a turn; leave the tag unset (the server parts the "
                "thinking from the answer), or say by engine_args continues how it goes on"
            )
        turns = [(one.role, one.content) for one in chat.messages] or ([("user", asked)] if asked else [])
        ids = [one for role, text in turns for one in (self.tokenizer.mark(role), *self.encode(text))]
        if turns:
            ids.append(self.tokenizer.mark("assistant"))
        return (*ids, *self.encode(chat.opening))

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        draws = n if params.temperature > 0 else min(n, 1)  # the most likely sample is always the same
        samples = await self._thread.run(self._sample_all(context, draws, params))
        return Expansion(None, tuple(samples) if draws == n else tuple(samples) * n)

    async def evaluate(self, context: Context) -> float:
        raise UserError("a server of chats gives no values: take them from rollouts, value_from: majority")

    def usage(self, root: Context) -> Usage:
        """What was done for all prompts that begin with `root`, as far as the server reports it."""
        return self.counter.usage(root)

    @property
    def totals(self) -> Usage:
        return self.counter.totals

    # --- one sample

    async def _sample_all(self, context: Context, n: int, params: Sampling) -> list[Sample]:
        return await asyncio.gather(*(self._sample(context, index, params) for index in range(n)))

    async def _sample(self, context: Context, index: int, params: Sampling) -> Sample:
        wanted: dict[str, Any] = {"temperature": params.temperature, "logprobs": True}
        if params.temperature > 0:
            wanted |= {"top_p": params.top_p, "seed": seed_of(params.key, index) & 0x7FFFFFFF}
            if params.top_k > 0:
                wanted["top_k"] = params.top_k
        if params.stop and self._names_stops:
            wanted["stop"] = list(params.stop[:MOST_STOPS])
        reply = await self._complete(context, wanted, params.max_tokens)
        choice = reply["choices"][0]
        self._names_stops |= any(key in choice for key in ("stop_reason", "matched_stop"))
        return self._read(context, params.stop, choice)

    def _read(self, context: Context, stops: Sequence[str], choice: dict[str, Any]) -> Sample:
        """The sample in a reply, cut at the first stop string."""
        text = _said(choice["message"])
        finish: Finish = "eos" if choice.get("finish_reason") in (None, "stop", "tool_calls", "eos") else "length"
        named = choice.get("stop_reason", choice.get("matched_stop"))
        stop = named if isinstance(named, str) and named in stops else ""
        found = [(at, -len(one), one) for one in stops if (at := text.find(one)) >= 0]
        if found:
            at, _, stop = min(found)
            text = text[:at]
        if stop:
            finish = "stop"
        ids = self.tokenizer.encode(text + stop)
        logprob = _logprob(choice.get("logprobs"), len(text + stop))
        return Sample(ids, text, logprob, finish, stop, "", self.tokenizer.ends(text + stop), Context(context, ids))

    # --- the server

    def _messages(self, context: Context) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the messages of a prompt, what else asks the server to go on with the last one). Raises UserError."""
        *before, (_, begun) = self.tokenizer.turns(context.all_token_ids())
        messages: list[dict[str, Any]] = [
            {"role": role, "content": visible(text).strip() if role == "assistant" else text} for role, text in before
        ]
        if not begun:
            return messages, {}
        how = self.settings.continues
        if how == "no":
            raise UserError(
                "this server does not go on inside a turn, as the next step would have to: use step_cut: turn with "
                "observation_as: user, or say by engine_args continues how it goes on (message, vllm or prefix)"
            )
        last = {"role": "assistant", "content": begun} | ({"prefix": True} if how == "prefix" else {})
        extras = {"continue_final_message": True, "add_generation_prompt": False} if how == "vllm" else {}
        return [*messages, last], extras

    async def _complete(self, context: Context, wanted: dict[str, Any], limit: int) -> dict[str, Any]:
        """The reply to one prompt, one choice. Raises UserError and ContextTooLong."""
        messages, extras = self._messages(context)
        while True:
            body = {"model": self._name, "messages": messages, self._limit_key: limit, **extras, **self.settings.body}
            body |= {key: value for key, value in wanted.items() if key not in self._dropped}
            try:
                reply = await self._client.call("POST", PATH, body, check=_fault)
                break
            except Refused as error:
                if error.too_long:
                    raise ContextTooLong(str(error)) from None
                if not self._adapts(str(error), body):
                    raise UserError(f"{self.settings.base_url}{PATH}: {error}") from None
        usage = reply.get("usage") or {}
        prompt, generated = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        cached = _count(usage.get("prompt_tokens_details") or {}, "cached_tokens")
        counted = {"reused": min(cached, prompt), "decoded": max(0, generated - 1), "generated": generated}
        self.counter.count(context, prompt=prompt, **counted)
        return reply

    def _adapts(self, message: str, body: dict[str, Any]) -> bool:
        """Whether the next try asks otherwise: without a key that the server does not know and we can do without, or
        with the limit under its other name."""
        if self._limit_key == "max_tokens" in body and "max_completion_tokens" in message:
            self._limit_key = "max_completion_tokens"
            return True
        unknown = next((key for key in DISPENSABLE if key in body and key in message), None)
        if unknown is not None:
            self._dropped.add(unknown)
        return unknown is not None


def _said(message: dict[str, Any]) -> str:
    """The text of a reply: its reasoning in a thinking section, its content, its tool calls."""
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    calls = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    called = "".join(f"\n<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls if call)
    thought = f"<think>\n{reasoning}\n</think>\n\n" if isinstance(reasoning, str) and reasoning.strip() else ""
    return f"{thought}{content}{called}"


def _logprob(found: Any, length: int) -> float:
    """The log-probability of the tokens of the first `length` characters, as far as the reply holds it."""
    total, at = 0.0, 0
    for token in (found.get("content") or ()) if isinstance(found, dict) else ():
        if at >= length:
            break
        total += float(token.get("logprob") or 0.0)
        at += len(token.get("token") or "")
    return total


def _count(usage: dict[str, Any], key: str) -> int:
    return usage[key] if type(usage.get(key)) is int else 0


def _fault(reply: Any) -> str | None:
    """What keeps a reply from being a completion whose sample can be taken, or None."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "no choices"
    message, logprobs = choices[0].get("message"), choices[0].get("logprobs")
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | list | None):
        return "a choice without a message"
    if not isinstance(message.get("tool_calls"), list | None):
        return "tool_calls are no list"
    if not isinstance(choices[0].get("finish_reason"), str | None):
        return "finish_reason is no text"
    rows = (logprobs.get("content") or []) if isinstance(logprobs, dict) else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "logprobs are no list of tokens"
    return None if isinstance(reply.get("usage"), dict | None) else "usage is no object"


def _stop(thread: Background, client: Client) -> None:
    thread.call(client.close())
    thread.stop()

"""Conversations as token ids, by the chat template of a tokenizer or one that the user gives.

The ids are those of `apply_chat_template`. What differs: a control token that stands in the text of a user or a tool is
encoded as the characters that it is made of, and a turn can be laid out alone, behind what the assistant wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mcts.errors import UserError
from mcts.model import Conversation, Message
from models.engines.text import Tokenizer, first_line

_UNTRUSTED = ("user", "tool")
_TAG = re.compile(r"[<\[◁｜|].*[>\]▷｜|]", re.DOTALL)


def encode_chat(tokenizer: Tokenizer, chat: Conversation) -> tuple[int, ...]:
    """The ids of a conversation up to where the assistant writes on.

    Raises UserError where there is no template, and where it refuses the conversation.
    """
    if not chat.messages:
        return tuple(tokenizer.encode_controls(chat.opening, first=False))
    hidden = _Hidden(_controls(tokenizer), [message.content for message in chat.messages])
    messages = [{"role": one.role, "content": hidden.hide(one)} for one in chat.messages]
    if chat.follows:
        written = hidden.mark * 2
        begun = [{"role": "user", "content": "1"}, {"role": "assistant", "content": written}]
        _, found, text = _laid_out(tokenizer, chat, [*begun, *messages]).rpartition(written)
        if not found:
            raise UserError("chat template: it leaves out what the assistant wrote; name another by chat_template_path")
    else:
        text = _laid_out(tokenizer, chat, messages)
        if not text.rstrip().endswith(chat.opening.rstrip()):
            text += chat.opening
    return tuple(_pieces(tokenizer, hidden, text, first=not chat.follows))


def chat_template(tokenizer: Tokenizer) -> str | None:
    """The template that a tokenizer brings, as Jinja text; None without one."""
    found = getattr(tokenizer.wrapped, "chat_template", None)
    return found.get("default") if isinstance(found, dict) else found


class _Hidden:
    """Control tokens in the text of users and tools, behind marks that a template passes on as it passes text on."""

    def __init__(self, controls: Iterable[str], contents: Sequence[str]) -> None:
        self.mark = next(sign for sign in map(chr, range(0xE000, 0xF8FF)) if not any(sign in one for one in contents))
        self.found: list[str] = []
        ordered = sorted(controls, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self.hidden = re.compile(rf"{self.mark}(\d+){self.mark}")

    def hide(self, message: Message) -> str:
        if message.role not in _UNTRUSTED or self._controls is None:
            return message.content
        return self._controls.sub(self._keep, message.content)

    def _keep(self, match: re.Match[str]) -> str:
        self.found.append(match[0])
        return f"{self.mark}{len(self.found) - 1}{self.mark}"


def _pieces(tokenizer: Tokenizer, hidden: _Hidden, text: str, first: bool) -> list[int]:
    """The ids of a laid out text; `first`: it begins the prompt."""
    parts = hidden.hidden.split(text)  # text, number, text, number, ..., text
    ids = tokenizer.encode_controls(parts[0], first=first)
    for number, part in zip(parts[1::2], parts[2::2], strict=True):
        ids += _spelled(tokenizer, hidden.found[int(number)])
        ids += tokenizer.encode_controls(part, first=False) if part else []
    return ids


def _spelled(tokenizer: Tokenizer, control: str) -> list[int]:
    """The ids of the characters of a control token."""
    ids: list[int] = []
    for part in filter(None, (control[:1], control[1:])):
        inner = len(part) > 1 and any(one in part for one in _controls(tokenizer))
        ids += _spelled(tokenizer, part) if inner else tokenizer.encode(part)
    return ids


def _controls(tokenizer: Tokenizer) -> frozenset[str]:
    """The control tokens of a tokenizer as text: the special ones, and added ones that look like a tag."""
    wrapped = tokenizer.wrapped
    added = getattr(wrapped, "added_tokens_decoder", None)
    if added is None:
        return frozenset(getattr(wrapped, "control_texts", ()))
    return frozenset(
        one.content for one in added.values() if one.content and (one.special or _TAG.fullmatch(one.content))
    )


def _laid_out(tokenizer: Tokenizer, chat: Conversation, messages: list[dict[str, str]]) -> str:
    apply: Any = getattr(tokenizer.wrapped, "apply_chat_template", None)
    if apply is None or not (chat.template or chat_template(tokenizer)):
        raise UserError("the model's tokenizer has no chat template; name a file of one by chat_template_path")
    own = {"chat_template": chat.template} if chat.template else {}
    try:
        return str(apply(messages, tokenize=False, add_generation_prompt=True, **own, **chat.options))
    except Exception as error:  # a template is a program, and raises what it likes
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        raise UserError(f"chat template: it cannot lay out turns of {roles}: {first_line(error)}") from None

"""Text in and out of a tokenizer, piece by piece: prompts are joined from token ids, never from text."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from mcts.errors import UserError
from mcts.model import Conversation


class Tokenizer:
    """Wraps a transformers tokenizer for text that stands in the middle of a prompt.

    Some tokenizers treat the first characters of a text specially (a space is added in front). Text that continues
    a prompt is therefore encoded and decoded behind an anchor, which is then taken off again.

    The name of a control token in a text (`<|im_end|>` in a question or in what a program printed) is text: only a
    sampled token, and what the tokenizer puts in front of a prompt, is a control token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)  # the fast one: safe to use from two threads
        self._anchor: list[int] = self._ids("\n")
        self._anchor_text: str = self._text(self._anchor)
        self._pieces: dict[int, str] = {}
        self._lengths: dict[int, int] = {}  # of the pieces

    @property
    def wrapped(self) -> Any:
        """The tokenizer inside."""
        return self._tokenizer

    @property
    def size(self) -> int:
        """The largest token id + 1."""
        vocabulary = getattr(self._tokenizer, "get_vocab", None)
        return int(self._tokenizer.size) if vocabulary is None else max(vocabulary().values()) + 1

    def _ids(self, text: str, special: bool = False) -> list[int]:
        if self._backend is not None:
            self._backend.encode_special_tokens = True  # "as text"; other callers of the tokenizer may have reset it
            return list(self._backend.encode(text, add_special_tokens=special).ids)
        return list(self._tokenizer(text, add_special_tokens=special, split_special_tokens=True)["input_ids"])

    def _text(self, ids: Sequence[int]) -> str:
        if self._backend is not None:
            text = self._backend.decode(list(ids), skip_special_tokens=False)
        else:
            text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def encode_start(self, text: str) -> tuple[int, ...]:
        """The ids of a prompt's beginning, with the tokenizer's own special tokens (such as BOS)."""
        return tuple(self._ids(_encodable(text), special=True))

    def encode_chat(self, chat: Conversation) -> tuple[int, ...]:
        """The ids of a conversation, by its chat template. Raises UserError."""
        from models.engines.chat_template import encode_chat

        return encode_chat(self, chat)

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text that continues a prompt."""
        text = _encodable(text)
        ids = self._ids(text)
        if self.decode(ids) == text:
            return tuple(ids)
        anchored = self._ids(self._anchor_text + text)
        kept = anchored[len(self._anchor) :]
        return tuple(kept if anchored[: len(self._anchor)] == self._anchor and self.decode(kept) == text else ids)

    def encode_controls(self, text: str, *, first: bool) -> list[int]:
        """The ids of a laid out text, in which the names of control tokens count. first: it begins the prompt."""
        if not first:
            ids = self._controlled(self._anchor_text + text)
            if ids[: len(self._anchor)] == self._anchor:
                return ids[len(self._anchor) :]
        return self._controlled(text)

    def _controlled(self, text: str) -> list[int]:
        if self._reader is not None:
            return list(self._reader.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    @cached_property
    def _reader(self) -> Any:
        """A second fast tokenizer, so that the two ways to encode do not share a switch."""
        reader = copy.deepcopy(self._backend)
        if reader is not None:
            reader.encode_special_tokens = False
        return reader

    def disarmed(self, text: str) -> str:
        """The text for a server that tokenizes it itself: no name of a control token in it stands in one piece."""
        for name in getattr(self._tokenizer, "all_special_tokens", ()):
            text = text.replace(name, f"{name[:1]}\u200b{name[1:]}")
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that continue a prompt."""
        return self._text([*self._anchor, *ids])[len(self._anchor_text) :]

    def decode_start(self, ids: Sequence[int]) -> str:
        """The text of ids that begin a prompt, special tokens included."""
        return self._text(ids)

    def piece(self, token: int) -> str:
        """The text of one token; part of a character is U+FFFD."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.decode([token])
        return piece

    def ends(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """For each token the length of `text` (the text of all) up to its end; the tokens of one character all end
        where the character does."""
        lengths = self._lengths
        for token in ids:
            if token not in lengths:
                lengths[token] = len(self.piece(token))
        ends = list(accumulate(map(lengths.__getitem__, ids)))
        if "\ufffd" not in text and (not ends or (ends[-1] == len(text))):
            return tuple(ends)
        ends = []
        for count in range(1, len(ids) + 1):
            part = self.decode(ids[:count])
            ends.append(len(part) if text.startswith(part) else -1)
        for index in range(len(ends) - 2, -1, -1):
            if ends[index] < 0:
                ends[index] = ends[index + 1]
        return tuple(len(text) if end < 0 else end for end in ends)


def _encodable(text: str) -> str:
    """The text with lone surrogates replaced: no tokenizer can read them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, without running code from it. Raises UserError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every reader of a broken or hostile folder fails in its own way
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {first_line(error)}") from None


def eos_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a sequence: the tokenizer's and those of generation_config.json, else of config.json."""
    found = {tokenizer.eos_token_id}
    for name in ("generation_config.json", "config.json"):
        if (folder / name).exists():
            eos = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            found |= set(eos) if isinstance(eos, list) else {eos}
            break
    return frozenset(token for token in found if token is not None)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

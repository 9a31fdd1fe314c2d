"""Worked solutions as training examples: ToRA's corpus (messages, or prompt and completion) and the solutions that
shaping keeps (question and steps). The lines are those of models/training/examples.py, without value targets.

What the environment wrote (tool output) is not learned, unless it is asked for: ToRA's own training learned it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from mcts.errors import UserError
from mcts.jsonl import encode_line, read_objects, write_whole
from mcts.markup import Markup, Turns
from mcts.model import Conversation, Message, Role
from models.training.examples import Speller, encode_prompt

EOS = "\0"  # stands for the end-of-sequence token in a piece's text
Author = Literal["given", "model", "tool"]
Piece = tuple[str | Conversation, Author]
"""(text, who wrote it). A conversation stands first, or brings turns behind what the model wrote."""

_OUTPUT = re.compile(r"(?<=```output)(\n.*?\n```(?:\n|\Z))", re.DOTALL)
_ROLES = ("system", "user", "assistant")


def message_pieces(markup: Markup, messages: Sequence[Mapping[str, str]]) -> list[Piece]:
    """A conversation: by the model's own template where the markup is a chat, else in ToRA's form."""
    known = (*_ROLES, "tool") if isinstance(markup, Turns) else _ROLES
    if wrong := next((one["role"] for one in messages if one["role"] not in known), None):
        raise ValueError(f"role {wrong!r} is unknown; expected {', '.join(known)}")
    pieces: list[Piece] = []
    before: list[Mapping[str, str]] = []
    for message in messages:
        if message["role"] != "assistant":
            before.append(message)
            continue
        pieces.append((_turns(markup, before, follows=bool(pieces)), "given"))
        spoken = _OUTPUT.split(message["content"].strip())
        pieces += [(text, "tool" if at % 2 else "model") for at, text in enumerate(spoken)]
        if not isinstance(markup, Turns):
            pieces.append((EOS, "model"))
        before = []
    return [*pieces, (EOS, "model")] if isinstance(markup, Turns) else pieces


def _turns(markup: Markup, messages: Sequence[Mapping[str, str]], follows: bool) -> str | Conversation:
    """What stands before an assistant's turn."""
    if isinstance(markup, Turns):
        said = tuple(Message(cast("Role", one["role"]), one["content"]) for one in messages)  # the roles are checked
        return markup.conversation(said, follows=follows)
    text = "".join(f"<|{one['role']}|>\n{one['content']}\n" for one in messages)
    return ("\n" if follows else "") + text + "<|assistant|>\n"


def step_pieces(markup: Markup, question: str, steps: Sequence[str], ends: bool) -> list[Piece]:
    """A solution in steps under a markup. ends: the model has to learn to stop (no closing tag says so)."""
    pieces: list[Piece] = [(markup.prompt(question), "given")]
    for place, step in enumerate(steps):
        last = place == len(steps) - 1
        parted = None if last or not isinstance(markup, Turns) else markup.parted(step)
        if parted is not None:
            pieces += [(parted[0], "model"), (parted[1], "tool")]
            continue
        cut = markup.written(step)
        pieces.append((step[:cut], "model"))
        if not last:
            pieces.append((step[cut:] + markup.step_delim, "tool"))
    return [*pieces, (EOS, "model")] if ends else pieces


@dataclass
class Spelling:
    """Rows in, example lines out. learn_outputs: learn what tools wrote as well, as published."""

    speller: Speller
    eos: int
    markup: Markup
    ends: bool
    learn_outputs: bool = False

    def pieces(self, row: Mapping[str, Any]) -> list[Piece]:
        if "messages" in row:
            return message_pieces(self.markup, row["messages"])
        if "steps" in row:
            return step_pieces(self.markup, row["question"], row["steps"], self.ends)
        prompt, completion = row["prompt"], row["completion"]
        glue = "" if prompt[-1:].isspace() or completion[:1].isspace() else " "
        return [(prompt + glue, "given"), (completion, "model"), (EOS, "model")]

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Token ids and loss mask. The pieces are encoded one by one, as a search joins them. Turns behind the model's
        text begin with the token that ends its own turn: this one it has to learn."""
        ids: list[int] = []
        mask: list[int] = []
        learned = ("model", "tool") if self.learn_outputs else ("model",)
        for text, author in self.pieces(row):
            if text == EOS:
                own: tuple[int, ...] = (self.eos,)
            else:
                follows = ids and isinstance(text, str)
                own = self.speller.encode(str(text)) if follows else encode_prompt(self.speller, text)
            learn = [int(author in learned)] * len(own)
            if ids and not isinstance(text, str):
                learn[0] = 1
            ids += own
            mask += learn
        return {"kind": "path", "correct": True, "token_ids": ids, "loss_mask": mask, "targets": []}


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a JSONL file; a row with several `solutions` counts as so many rows. Raises UserError."""
    for where, row in read_objects(path):
        solutions = row.get("solutions", [{}])
        if not isinstance(solutions, list) or not all(isinstance(one, dict) for one in solutions):
            raise UserError(f'{where}: "solutions": expected a list of objects')
        yield from ((where, {**row, **one}) for one in solutions)


def write_examples(paths: Iterable[Path], spelling: Spelling, output: Path) -> Counter[str]:
    """Writes the examples of some files, in order, and returns counts. Raises UserError with file and line."""
    counts = Counter[str]()
    with write_whole(output) as lines:
        for where, row in (item for path in paths for item in read_rows(path)):
            try:
                line = spelling.example(row)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UserError(
                    f"{where}: expected messages, question with steps, or prompt with completion ({error!r})"
                ) from None
            lines.write(encode_line({**line, "group": where}))
            counts["examples"] += 1
            counts["tokens"] += len(line["token_ids"])
            counts["tokens learned"] += sum(line["loss_mask"])
    return counts

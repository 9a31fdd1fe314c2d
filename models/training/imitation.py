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
from typing import Any, Literal

from mcts.errors import UserError
from mcts.jsonl import encode_line, read_objects, write_whole
from mcts.markup import Markup
from mcts.model import Conversation
from models.training.examples import Speller, encode_prompt

EOS = "\0"  # stands for the end-of-sequence token in a piece's text
Author = Literal["given", "model", "tool"]
Piece = tuple[str | Conversation, Author]
"""(text, who wrote it). A conversation stands first."""

_OUTPUT = re.compile(r"(?<=```output)(\n.*?\n```(?:\n|\Z))", re.DOTALL)
_ROLES = ("system", "user", "assistant")


def message_pieces(messages: Sequence[Mapping[str, str]]) -> list[Piece]:
    """A conversation in ToRA's form."""
    pieces: list[Piece] = []
    before = ""
    for message in messages:
        role, content = message["role"], message["content"]
        if role not in _ROLES:
            raise ValueError(f"role {role!r} is unknown; expected {', '.join(_ROLES)}")
        before += f"<|{role}|>\n"
        if role == "assistant":
            pieces.append((before, "given"))
            pieces += [(text, "tool" if at % 2 else "model") for at, text in enumerate(_OUTPUT.split(content.strip()))]
            pieces.append((EOS, "model"))
            before = "\n"
        else:
            before += f"{content}\n"
    return pieces


def step_pieces(markup: Markup, question: str, steps: Sequence[str], ends: bool) -> list[Piece]:
    """A solution in steps under a markup. ends: the model has to learn to stop (no closing tag says so)."""
    pieces: list[Piece] = [(markup.prompt(question), "given")]
    for place, step in enumerate(steps):
        cut = markup.written(step)
        pieces.append((step[:cut], "model"))
        if place < len(steps) - 1:
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
            return message_pieces(row["messages"])
        if "steps" in row:
            return step_pieces(self.markup, row["question"], row["steps"], self.ends)
        prompt, completion = row["prompt"], row["completion"]
        glue = "" if prompt[-1:].isspace() or completion[:1].isspace() else " "
        return [(prompt + glue, "given"), (completion, "model"), (EOS, "model")]

    def example(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Token ids and loss mask. The pieces are encoded one by one, as a search joins them."""
        ids: list[int] = []
        mask: list[int] = []
        learned = ("model", "tool") if self.learn_outputs else ("model",)
        for text, author in self.pieces(row):
            if text == EOS:
                own: tuple[int, ...] = (self.eos,)
            else:
                own = self.speller.encode(str(text)) if ids else encode_prompt(self.speller, text)
            ids += own
            mask += [int(author in learned)] * len(own)
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
    output.parent.mkdir(parents=True, exist_ok=True)
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

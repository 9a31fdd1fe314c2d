"""Question files in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mcts.errors import UserError
from mcts.jsonl import read_items
from mcts.question import Question


def read_questions(path: str | Path, *, need_answer: bool = False) -> Iterator[Question]:
    """The questions of a .json or .jsonl file, one at a time. Raises UserError with file and line."""
    for index, (where, item) in enumerate(read_items(Path(path))):
        if not isinstance(item, dict):
            raise UserError(f"{where}: expected an object with a question, found {type(item).__name__}")
        if not isinstance(item.get("question"), str) or not item["question"].strip():
            raise UserError(f'{where}: "question" is missing or not a text')
        question = Question(index, item, where)
        if not question.answers and need_answer:  # what is no answer is refused in any case
            raise UserError(f'{where}: "answer" is missing; is_sampling needs the answers')
        yield question


def count_questions(path: str | Path, *, need_answer: bool = False) -> int:
    """Reads a question file through once, so that a bad line is found before any work is done.

    Raises UserError, also for an empty file.
    """
    count = sum(1 for _ in read_questions(path, need_answer=need_answer))
    if count == 0:
        raise UserError(f"{path}: no question in it")
    return count

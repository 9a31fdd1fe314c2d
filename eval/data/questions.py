"""Questions and their accepted answers out of any file: the one reader of all commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.data.rows import Row, read_rows
from eval.grading.gold import read_gold
from mcts.errors import UserError, nearest
from mcts.question import Question

QUESTION_KEYS = ("question", "problem", "prompt", "input", "query", "instruction", "problem_statement", "question_text")
ANSWER_KEYS = (
    "answer", "final_answer", "expected_answer", "gold", "gold_answer", "ground_truth", "groundtruth", "gt", "target",
    "correct_answer", "reference_answer", "reference", "answers", "label",
)  # fmt: skip
SOLUTION_KEYS = ("solution", "rationale", "output", "completion", "response")
"""Texts whose answer is their last box, or what follows their `####`."""


def read_questions(
    path: str | Path, *, question_key: str | None = None, answer_key: str | None = None, need_answer: bool = False
) -> Iterator[Question]:
    """The questions of a file, one at a time.

    question_key, answer_key: the columns; None finds them by their usual names, whatever their case. An item keeps all
    its columns and gets `question` and `answer` where these are named otherwise or hold more than the answer (which
    then stands under `solution`). need_answer: a question without an answer is refused; what is no answer always is.
    Raises UserError with file and line.
    """
    for index, (where, row) in enumerate(read_rows(path)):
        yield read_question(index, row, where, question_key, answer_key, need_answer)


def count_questions(
    path: str | Path, *, question_key: str | None = None, answer_key: str | None = None, need_answer: bool = False
) -> int:
    """Reads a question file through once, so that a bad line is found before any work is done.

    Raises UserError, also for an empty file.
    """
    questions = read_questions(path, question_key=question_key, answer_key=answer_key, need_answer=need_answer)
    count = sum(1 for _ in questions)
    if count == 0:
        raise UserError(f"{path}: no question in it")
    return count


def read_question(
    index: int,
    row: Row,
    where: str,
    question_key: str | None = None,
    answer_key: str | None = None,
    need_answer: bool = False,
) -> Question:
    """One row as a question; the arguments are those of `read_questions`. Raises UserError."""
    item = dict(row)
    text = _text(row, where, question_key)
    golds = read_answers(row, where, answer_key)
    if not golds and need_answer:
        raise UserError(f'{where}: "{answer_key or "answer"}" is missing; is_sampling needs the answers')
    if item.get("question") != text:
        item["question"] = text
    if golds and not _says(item.get("answer"), golds):
        if item.get("answer") is not None:
            item.setdefault("solution", item["answer"])
        item["answer"] = golds[0] if len(golds) == 1 else list(golds)
    return Question(index, item, where, golds)


def read_answers(row: Row, where: str, answer_key: str | None = None) -> tuple[str, ...]:
    """The accepted answers of a row or of a saved record; none where it has no column for them. Raises UserError."""
    key = (_first(row, ANSWER_KEYS) or _solution_key(row)) if answer_key is None else _key(row, where, answer_key)
    if key is None or row[key] is None:
        return ()
    try:
        return read_gold(row[key])
    except ValueError:
        raise UserError(
            f'{where}: "{key}": expected a text, a number or a list of them, found {row[key]!r:.60}'
        ) from None


def _text(row: Row, where: str, question_key: str | None) -> str:
    """The question, behind its body where the two stand apart (SVAMP, ASDiv)."""
    key = _first(row, QUESTION_KEYS) if question_key is None else _key(row, where, question_key)
    text = None if key is None else row[key]
    if not isinstance(text, str) or not text.strip():
        name = question_key or key or "question"
        raise UserError(f'{where}: "{name}" is missing or not a text; it has {", ".join(row) or "nothing"}')
    body = _first(row, ("body",)) if question_key is None else None
    if body is None or not isinstance(row[body], str):
        return text
    before = row[body].strip()
    return f"{before}{'' if before.endswith(('.', '?', '!')) else '.'} {text.strip()}"


def _first(row: Row, names: tuple[str, ...]) -> str | None:
    """The key of the first of `names` that a row has with something in it, whatever its case."""
    if names[0] in row and row[names[0]] is not None:
        return names[0]
    found = {key.lower().replace(" ", "_"): key for key in row if row[key] is not None}
    return next((found[name] for name in names if name in found), None)


def _solution_key(row: Row) -> str | None:
    key = _first(row, SOLUTION_KEYS)
    states = key is not None and isinstance(row[key], str) and ("\\boxed" in row[key] or "####" in row[key])
    return key if states else None


def _key(row: Row, where: str, key: str) -> str:
    if key not in row:
        raise UserError(f"{where}: no column {key!r}{nearest(key, row)}; it has {', '.join(row) or 'nothing'}")
    return key


def _says(answer: Any, golds: tuple[str, ...]) -> bool:
    """Whether a column holds the accepted answers and nothing more, as any reader finds them."""
    listed = answer if isinstance(answer, list) else [answer]
    return all(isinstance(one, int | float) for one in listed) or tuple(map(str, listed)) == golds

"""A question, as a search takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcts.errors import UserError


@dataclass(frozen=True)
class Question:
    """One item of a question file. index: its position; where: file and line (or item) for error messages."""

    index: int
    item: dict[str, Any]
    where: str

    @property
    def text(self) -> str:
        return str(self.item["question"])

    @property
    def answers(self) -> tuple[str, ...]:
        """The accepted answers; empty when none is known. Raises UserError for what is no answer."""
        answer = self.item.get("answer")
        if answer is None:
            return ()
        accepted = answer if isinstance(answer, list) else [answer]
        if not all(isinstance(one, str | int | float) for one in accepted):
            raise UserError(
                f'{self.where}: "answer": expected a text, a number or a list of them, found {answer!r:.60}'
            )
        return tuple(map(str, accepted))

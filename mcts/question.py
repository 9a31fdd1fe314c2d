"""A question, as a search takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcts.errors import UserError


@dataclass(frozen=True)
class Question:
    """One item of a question file.

    index: its position. item: its columns, `question` and `answer` among them. where: file and line (or item) for error
    messages. golds: the accepted answers that a reader found in the item; None: `answer` is taken as it is.
    """

    index: int
    item: dict[str, Any]
    where: str
    golds: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        return str(self.item["question"])

    @property
    def answers(self) -> tuple[str, ...]:
        """The accepted answers; empty when none is known. Raises UserError for what is no answer."""
        if self.golds is not None:
            return self.golds
        answer = self.item.get("answer")
        if answer is None:
            return ()
        accepted = answer if isinstance(answer, list) else [answer]
        if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in accepted):
            raise UserError(
                f'{self.where}: "answer": expected a text, a number or a list of them, found {answer!r:.60}'
            )
        return tuple(map(str, accepted))

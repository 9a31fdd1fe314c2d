"""What runs on the machines of a cluster: a model, the interpreter beside it, and the searches of some questions."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from arbor.assembly import describe, load_model, open_solver
from mcts.errors import UserError
from mcts.jsonl import encode_line
from mcts.question import Question
from mcts.search.driver import Solver
from models.engines.config import RunConfig


@dataclass(frozen=True)
class Answered:
    """A finished question. line: of the tree file. seen: what a progress bar reads of the record."""

    line: bytes
    seen: dict[str, Any]


class Engine:
    """An actor. It is placed at once, and loads its model when told to, so that what fails then has a message."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._solver: Solver | None = None

    async def placed(self) -> int:
        """The id of the process."""
        return os.getpid()

    async def load(self, config: RunConfig, meta: dict[str, Any], seed: int) -> None:
        """Loads the model and starts an interpreter. Raises UserError, also where the model is not the driver's."""
        found = describe(config)
        if found["fingerprint"] != meta["fingerprint"]:
            raise UserError(
                f"{os.uname().nodename}: {config.model_dir} is {found['model']}, where the run was started it is "
                f"{meta['model']}; expected the same files on every machine"
            )
        meta = meta | {"versions": found["versions"]}
        self._solver = await self._stack.enter_async_context(open_solver(config, load_model(config), meta, seed))

    async def solve(self, question: Question) -> Answered:
        assert self._solver is not None, "load() comes first"
        record = await self._solver.solve(question)
        seen = {key: record[key] for key in ("answer", "prediction") if key in record}
        return Answered(encode_line(record), seen | {"meta": {"no_answer": record["meta"].get("no_answer")}})

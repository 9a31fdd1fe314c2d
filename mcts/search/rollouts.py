"""Values without a value head: a node is worth what the solutions that go on from it end in.

Each node gets k sampled solutions; its value is the mean of +1 for those that end in the question's majority answer (of
the k solutions from the root, as in self-consistency, https://arxiv.org/abs/2203.11171) and -1 for the others. Their
noise is a function of (seed, question, run, tag, index). It costs k solutions a node, and cannot tell a wrong majority
from a right one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mcts.question import Question
from mcts.search.driver import Solver
from mcts.search.expansion import Expander, Grader
from mcts.search.linear import linear
from mcts.search.search import Search
from mcts.search.voting import Candidate, decide, same_answer
from mcts.trees.node import Node


@dataclass
class RolloutExpander(Expander):
    """An Expander whose values come from rollouts."""

    grader: Grader | None = None
    _majority: asyncio.Future[str | None] | None = field(default=None, repr=False)

    async def grow(self, node: Node, n: int) -> tuple[float | None, list[Node]]:
        origin = replace(node, children=[])
        if self._majority is None:  # the root comes first
            self._majority = asyncio.ensure_future(self._most_frequent(origin))
        _, children = await super().grow(node, n)  # the model's own value is none of ours
        for child in children:
            if child.state is not None:
                child.state.shared = True  # rollouts start from it too
        read = self.config.method.expands_by_value and not self.config.update_leaf_value
        return await self._estimate(origin) if read else None, children

    async def _evaluate(self, node: Node) -> None:
        node.value = await self._estimate(node)

    async def _estimate(self, node: Node) -> float:
        """The mean outcome of the solutions from `node`, in [-1, 1]."""
        answers = [node.final_answer] if node.answered else await self._answers(node)
        assert self._majority is not None
        majority = await asyncio.shield(self._majority)
        if majority is None:
            return -1.0
        agree = [answer is not None and await same_answer(majority, answer, self.grader) for answer in answers]
        return 2.0 * sum(agree) / len(agree) - 1.0

    async def _most_frequent(self, root: Node) -> str | None:
        answers = [answer for answer in await self._answers(root) if answer is not None]
        candidates = [Candidate(answer, 0.0, root.tag, index) for index, answer in enumerate(answers)]
        decision = await decide(candidates, "majority", self.grader)
        return None if decision is None else decision.final_answer

    async def _answers(self, node: Node) -> Sequence[str | None]:
        """What k solutions from `node` end in; None: in nothing."""
        return await asyncio.gather(*(self._answer(node, index) for index in range(self.config.value_rollouts)))

    async def _answer(self, node: Node, index: int) -> str | None:
        key = (*self.key, "rollout", index)
        config = self.config.model_copy(update={"need_value_func": False})  # how it ends is all that is asked
        expander = Expander(config, self.model, self.markup, self.interpreter, key, counts=self.counts)
        search = Search(expander, replace(node, children=[]))
        await linear(search)
        return search.solutions[0].final_answer if search.solutions else None


class RolloutSolver(Solver):
    """A Solver whose searches take their values from rollouts."""

    def _expander(self, question: Question, run: int) -> Expander:
        key = (self.seed, question.index, run)
        return RolloutExpander(
            self.config, self.model, self.markup, self.interpreter, key, self.watcher, grader=self.grader
        )

"""A search in progress: what every method works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mcts.search.early import Early
from mcts.search.expansion import Expander, Grader
from mcts.trees.node import Node


@dataclass
class Search:
    """A search in progress. The driver may stop it at any await; what stands in `root` by then is kept.

    solutions: the answered leaves in the order of preference, best first.
    answers, grader: the accepted answers and the judge, for training (`is_sampling`).
    budget: simulations of MCTS. early: decisions before it is spent; stopped: why there was one.
    """

    expander: Expander
    root: Node
    answers: Sequence[str] = ()
    grader: Grader | None = None
    solutions: list[Node] = field(default_factory=list)
    budget: int = 0
    early: Early | None = None
    stopped: str | None = None

    def __post_init__(self) -> None:
        config = self.expander.config
        self.budget = self.budget or config.iterations
        if config.decides_early:
            self.early = Early(config)

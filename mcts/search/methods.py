"""The search methods by name. A method is one file in this folder and its line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts.registry import Registry

if TYPE_CHECKING:
    from mcts.search.search import Search


@dataclass(frozen=True)
class Method:
    """A search of one question, and what the rest of the house has to know of it.

    search: grows `Search.root` and fills `Search.solutions`, best first. It may be cancelled at any await; what stands
        in the tree by then is kept. A method that simulates may be called again with a larger `Search.budget`.
    title: its name for people.
    conclude: called once when the whole budget is spent and time is left; None: nothing is left to do.
    statistics: its nodes carry visit counts, Q and priors; they are saved, so offline decisions by them, examples with
        Q targets and preference pairs can be made of its trees.
    lists_solutions: every answer it kept is saved under `solutions` (step beam).
    simulates: it spends `iterations` simulations, which early decisions stop and `budget_block` shares.
    expands_by_value: the value of each node that it expands is read (with `update_leaf_value`: not).
    judged_by_value: without known answers it needs the value head to judge the answers that it found.
    """

    search: Callable[[Search], Awaitable[None]]
    title: str
    conclude: Callable[[Search], Awaitable[None]] | None = None
    statistics: bool = False
    lists_solutions: bool = False
    simulates: bool = False
    expands_by_value: bool = False
    judged_by_value: bool = False


METHODS: Registry[Method] = Registry(
    "search method",
    "arbor.methods",
    {
        "react": "mcts.search.linear:LINEAR",
        "sbs": "mcts.search.beam:STEP_BEAM",
        "mcts": "mcts.search.monte_carlo:MONTE_CARLO",
    },
)
"""`mode` of a configuration → its method."""

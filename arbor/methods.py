"""The searches as values: what a `Solver` is given. Each stands for some keys of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Vote = Literal["none", "majority", "value_weighted"]
PathValue = Literal["last", "min", "mean", "product"]


class Search(Protocol):
    """What a `Solver` takes for a method: something with the keys of a configuration."""

    def keys(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Method:
    """Any search method by its registered name, one from outside of Arbor included.

    mode: the name ("react", "sbs", "mcts", or one that a package registered in `mcts.search.methods.METHODS`).
    settings: further keys of a configuration (docs/configuration.md).
    """

    mode: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def keys(self) -> dict[str, Any]:
        return {"mode": self.mode, **self.settings}


@dataclass(frozen=True)
class Greedy:
    """One solution, the most likely step at a time. Needs no value head, and asks none."""

    def keys(self) -> dict[str, Any]:
        return {"mode": "react", "need_value_func": False, "temperature": 0.0}


@dataclass(frozen=True)
class Sampling:
    """Maj@k: n sampled solutions, the most frequent answer (self-consistency, https://arxiv.org/abs/2203.11171).

    n: solutions. temperature: of their sampling; at 0 all are the same. No value head is asked
    (`Method("react", {"need_value_func": True, "n_runs": n})` saves the values of their steps).
    """

    n: int = 5
    temperature: float = 0.7

    def keys(self) -> dict[str, Any]:
        return {"mode": "react", "need_value_func": False, "n_runs": self.n, "temperature": self.temperature}


@dataclass(frozen=True)
class StepBeam:
    """Step-level beam search guided by the value head (AlphaMath, https://arxiv.org/abs/2405.03553, section 4).

    beam: steps that are kept at each depth (B1). samples: next steps sampled of each (B2). temperature: of their
    sampling. vote: how the beam's own answers are combined; "none" takes the most valued one. path_value: what a path
    is worth, its "last" step's value (where nothing is set) or the "min", "mean" or "product" of all its steps'.
    """

    beam: int = 1
    samples: int = 5
    temperature: float = 1.0
    vote: Vote = "none"
    path_value: PathValue | None = None

    def keys(self) -> dict[str, Any]:
        return {
            "mode": "sbs",
            "step_beam_width": self.beam,
            "n_generate_sample": self.samples,
            "temperature": self.temperature,
            "vote": self.vote,
            **({"path_value": self.path_value} if self.path_value else {}),
            "need_value_func": True,
            "remove_duplicate": True,
        }


@dataclass(frozen=True)
class MCTS:
    """Monte Carlo tree search with PUCT (AlphaMath, https://arxiv.org/abs/2405.03553, section 3).

    simulations: selections of a leaf. samples: next steps sampled of it (B2). c_puct: weight of exploration.
    beam: width of the decision on the finished tree, and of the descent where the simulations found no answer.
    temperature: of the sampling. every_child: each new step is valued and backed up, not the expanded one alone.
    training: the known answers give the rewards, and the value head does not judge them. path_value: see `StepBeam`.
    """

    simulations: int = 40
    samples: int = 5
    c_puct: float = 0.5
    beam: int = 3
    temperature: float = 1.0
    every_child: bool = True
    training: bool = False
    path_value: PathValue | None = None

    def keys(self) -> dict[str, Any]:
        return {
            "mode": "mcts",
            "iterations": self.simulations,
            "n_generate_sample": self.samples,
            "c_puct": self.c_puct,
            "step_beam_width": self.beam,
            "temperature": self.temperature,
            "update_leaf_value": self.every_child and not self.training,
            "is_sampling": self.training,
            **({"path_value": self.path_value} if self.path_value else {}),
            "need_value_func": True,
            "remove_duplicate": True,
        }

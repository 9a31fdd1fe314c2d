"""What a training learns: the objectives by name, and how the terms of the loss are weighed. Without torch, so that
settings are read, and refused, before it is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcts.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from models.training.data import Totals

TERMS = ("policy", "value", "preference", "ranking")


@dataclass(frozen=True)
class Asked:
    """What the network says of what a batch asks for.

    logprobs, policy_weight: [n], of the learned tokens of paths and how often each is learned; values, value_target,
    value_weight: [m]; steps, reference: [p, 2], log-probabilities of (chosen, rejected) steps under the policy and its
    reference; ends: [p, 2], the values at the ends of the two steps.
    """

    logprobs: Tensor
    policy_weight: Tensor
    values: Tensor
    value_target: Tensor
    value_weight: Tensor
    steps: Tensor
    reference: Tensor
    ends: Tensor


@dataclass(frozen=True)
class Term:
    """A term beside the four of `losses.py`. sum: over what a batch asks for, a scalar; count: what the sum over
    the whole update is divided by."""

    name: str
    weight: float
    sum: Callable[[Asked], Tensor]
    count: Callable[[Totals], float]


@dataclass(frozen=True)
class Weights:
    """What each term counts. beta: sharpness of the preference; margin: of the ranking; more: further terms."""

    policy: float = 1.0
    value: float = 0.1
    preference: float = 0.0
    ranking: float = 0.0
    beta: float = 0.1
    margin: float = 0.5
    more: tuple[Term, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*TERMS, *(term.name for term in self.more))

    @property
    def values_alone(self) -> bool:
        """Whether no term asks for log-probabilities."""
        return not (self.policy or self.preference or self.more)

    def combine(self, terms: Tensor) -> Tensor:
        """The loss from its terms [k], in the order of `names`."""
        own = [getattr(self, term) for term in TERMS]
        return terms @ terms.new_tensor([*own, *(term.weight for term in self.more)])

    def means(self, sums: Tensor, totals: Totals) -> Tensor:
        """The terms [k] as means over what `totals` counts; 0 where there is nothing."""
        counts = [totals.policy, totals.value, totals.pairs, totals.pairs, *(one.count(totals) for one in self.more)]
        return sums / sums.new_tensor([max(1.0, count) for count in counts])


@dataclass(frozen=True)
class Objective:
    """What a training learns from examples.

    weights: of the terms, unless the keys of a training say otherwise. kinds: of the example lines that it uses, `path`
    and `pair`; lines of another kind are left out. examples: rules that its examples need (see ExampleRules).
    reference: its own terms need the log-probabilities of pairs under the model that training starts from (the term
        `preference` always gets them).
    """

    weights: Weights
    kinds: frozenset[str] = frozenset({"path"})
    examples: Mapping[str, Any] = field(default_factory=dict)
    reference: bool = False


OBJECTIVES: Registry[Objective] = Registry("objective", "arbor.objectives", {})
"""`objective` of a training and `method` of a round → what is learned."""


def register_objective(name: str) -> Callable[[Objective], Objective]:
    """Adds an objective: `MINE = register_objective("mine")(Objective(...))`. An entry point of the group
    `arbor.objectives` that names MINE makes it known wherever its package is installed."""
    return OBJECTIVES.register(name)


register_objective("sft")(Objective(Weights(value=0.0)))
register_objective("alphamath")(Objective(Weights()))
register_objective("ovm")(Objective(Weights(), examples={"targets": "outcome"}))
register_objective("svpo")(Objective(Weights(preference=1.0, ranking=0.1), frozenset({"path", "pair"}), {"pairs": 8}))

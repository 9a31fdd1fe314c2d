"""Early decisions: when a search may stop before its budget is spent, and which branches get no more of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mcts.config import Config
from mcts.search.rules import STRATEGIES, note_in_flight, path_value
from mcts.trees.node import NOT_EVALUATED, Node, walk

ROUNDING = 1e-9  # a bound and the sum it bounds are not added up in the same order


@dataclass
class Early:
    """What early decisions need to know of a search as it goes on, at O(depth) a simulation.

    fruitful: nodes at or below which an answer stands. weights: text of an answer → its votes. answers: how many.
    """

    config: Config
    fruitful: set[Node] = field(default_factory=set)
    weights: dict[str, float] = field(default_factory=dict)
    answers: int = 0

    def observe(self, leaf: Node) -> None:
        """Takes note of the new children of `leaf` and of the values that were backed up through it."""
        for child in leaf.children:
            if child.answered:
                self._answer(child)
        if self.config.hopeless_value is not None:
            self._give_up(leaf)

    def _answer(self, child: Node) -> None:
        votes = 1 + child.duplicates
        judged = self.config.need_value_func and child.value > NOT_EVALUATED
        weight = 1.0 + max(-1.0, path_value(child, self.config.path_value)) if judged else 1.0
        text = child.final_answer.strip()
        self.answers += votes
        self.weights[text] = self.weights.get(text, 0.0) + votes * weight
        node: Node | None = child
        while node is not None and node not in self.fruitful:
            self.fruitful.add(node)
            node = node.parent

    def _give_up(self, leaf: Node) -> None:
        """Closes the highest branch above `leaf` that is hopeless: its Q, after enough visits, is below the key's."""
        config = self.config
        assert config.hopeless_value is not None
        for node in [*leaf.path(), *leaf.children]:
            if not node.closed and node.visit_count >= config.hopeless_visits and node.q_value < config.hopeless_value:
                close_branch(node)
                return

    def reason(self, root: Node, remaining: int) -> str | None:
        """Why the search may stop with `remaining` simulations unspent ("agreed", "decided"), or None."""
        config = self.config
        if config.stop_agreement and self.answers >= config.stop_answers:
            total = sum(self.weights.values())
            if total and max(self.weights.values()) >= config.stop_agreement * total:
                return "agreed"
        if config.stop_when_decided and remaining > 0 and decided(root, self.fruitful, config, remaining):
            return "decided"
        return None


def close_branch(branch: Node) -> None:
    """Closes `branch` with all below it. Simulations in flight there are completed all the same."""
    for node in walk(branch):
        node.closed = True
        if not node.unobserved:
            node.release()
    branch.close()
    note_in_flight(branch, 0)


def decided(root: Node, fruitful: set[Node], config: Config, remaining: int) -> bool:
    """Whether no outcome of `remaining` simulations can change what `offline_inference` decides on this tree.

    A simulation backs up at most M = B2 + 1 values (with `update_leaf_value` B2), each in [low, high]: the range of
    the value head and of the rewards. That bounds the score of every node after them (`_Bounds`). The decision stands
    where, at every level of its walk, each kept node stays above each one that is not kept, those included whose first
    answer may yet be found, and where the best answer stays above the others (with a vote: where their order is fixed).
    Sufficient, not necessary: the bounds of two rivals give each the whole budget.
    """
    bounds = _Bounds(config, remaining)
    level, width, answers = [root], config.step_beam_width, list[Node]()
    while level and width > 0:
        seen = [child for node in level for child in node.children]
        seen = [child for child in seen if child.index < config.step_beam_width * config.n_generate_sample]
        ranked = sorted((child for child in seen if child in fruitful), key=bounds.score, reverse=True)
        kept = ranked[:width]
        later = [child for child in seen if child not in fruitful and not fixed(child)]
        if (later and len(kept) < width) or not bounds.apart(kept, ranked[width:] + later):
            return False
        answers += [node for node in kept if not node.children]
        level = [node for node in kept if node.children]
        width -= len(kept) - len(level)
    answers.sort(key=bounds.score, reverse=True)
    leading = len(answers) if config.vote != "none" else 1
    return bool(answers) and all(bounds.apart([answers[i]], answers[i + 1 :]) for i in range(leading))


def fixed(node: Node) -> bool:
    """Nothing will be backed up through the node any more."""
    return node.closed and not node.unobserved


class _Bounds:
    """Between what the score of a node can lie after `remaining` more simulations."""

    def __init__(self, config: Config, remaining: int) -> None:
        self.backups = remaining * (config.n_generate_sample + (not config.update_leaf_value))
        self.strategy, self.c_puct, self.rule = config.mcts_infer_strategy, config.c_puct, config.path_value
        self.low = min(-1.0, config.negative_reward, config.positive_reward)
        self.high = max(1.0, config.negative_reward, config.positive_reward)

    def score(self, node: Node) -> float:
        return STRATEGIES[self.strategy](node, self.c_puct, self.rule)

    def apart(self, above: list[Node], below: list[Node]) -> bool:
        """Whether every node of `above` stays ahead of every one of `below`. A tie is decided between siblings only:
        the order of nodes of different parents may change."""
        ends = [(node, *self.of(node)) for node in below]
        for node in above:
            low = self.of(node)[0]
            for other, _, high in ends:
                tie = low == high and node.parent is other.parent and node.index < other.index
                if not (low > high or tie):
                    return False
        return True

    def of(self, node: Node) -> tuple[float, float]:
        more = 0 if fixed(node) else self.backups
        if self.strategy == "visit_count":
            return node.visit_count, node.visit_count + more
        if self.strategy == "value":
            known = not more or node.value != NOT_EVALUATED
            return (self.score(node),) * 2 if known else (NOT_EVALUATED, self.high)
        low, high = self._q_value(node, more)
        if self.strategy == "puct":
            assert node.parent is not None
            reach, visits = self.c_puct * node.prior, node.parent.visit_count
            low += reach * math.sqrt(visits) / (1 + node.visit_count + more) - ROUNDING
            high += reach * math.sqrt(visits + self.backups) / (1 + node.visit_count) + ROUNDING
        return low, high

    def _q_value(self, node: Node, more: int) -> tuple[float, float]:
        if not more:
            return node.q_value, node.q_value
        visits = node.visit_count + more
        low, high = (node.value_sum + more * end for end in (self.low, self.high))
        return low / visits - ROUNDING, high / visits + ROUNDING

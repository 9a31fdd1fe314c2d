"""Decisions on a finished tree: prune, then walk down level by level and collect answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcts.config import Config
from mcts.search.rules import PATH_VALUES, STRATEGIES
from mcts.trees.node import NOT_EVALUATED, Node, walk
from mcts.trees.record import TreeError, from_record, read_number, read_text


def pruned_nodes(root: Node) -> set[Node]:
    """The nodes below which no answer stands."""
    pruned: set[Node] = set()
    for node in reversed(list(walk(root))):
        if (all(child in pruned for child in node.children)) if node.children else not node.answered:
            pruned.add(node)
    return pruned


def offline_inference(
    root: Node,
    *,
    strategy: str = "q_value",
    beam_width: int = 1,
    samples: int = 5,
    prune: bool = True,
    c_puct: float = 1.25,
    path_value: str = "last",
) -> list[Node]:
    """The answers of a saved or finished tree, best first; the first is the prediction.

    From the root down, the children of the kept nodes are ranked by `strategy` and cut to the beam; a kept answer
    leaves the beam and narrows it by one, and so does a kept node that leads nowhere. Children with an index of
    `beam_width` · `samples` and above are not seen. path_value: for strategy "value", a rule of PATH_VALUES.
    """
    by = STRATEGIES[strategy]

    def score(node: Node) -> float:
        return by(node, c_puct, path_value)

    pruned = pruned_nodes(root) if prune else set()
    answers: list[Node] = []
    level, width = [root], beam_width
    while level and width > 0:
        children = [
            child
            for node in level
            for child in node.children
            if child not in pruned and child.index < beam_width * samples
        ]
        kept = sorted(children, key=score, reverse=True)[:width]
        answers += [node for node in kept if node.answered and not node.children]
        level = [node for node in kept if node.children]
        width -= len(kept) - len(level)
    return sorted(answers, key=score, reverse=True)


def decided_by(config: Config, root: Node, *, prune: bool = True) -> list[Node]:
    """`offline_inference` as the keys of a configuration say."""
    return offline_inference(
        root,
        strategy=config.mcts_infer_strategy,
        beam_width=config.step_beam_width,
        samples=config.n_generate_sample,
        prune=prune,
        c_puct=config.c_puct,
        path_value=config.path_value,
    )


def saved_rule(record: Mapping[str, Any]) -> str:
    """The `path_value` that a saved line was searched with; "last", the published one, where it does not say."""
    meta = record.get("meta")
    config = meta.get("config") if isinstance(meta, Mapping) else None
    rule = config.get("path_value") if isinstance(config, Mapping) else None
    return rule if rule in PATH_VALUES else "last"


def solutions(tree: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(answer, value) of the saved solutions of a step beam, best first. Raises TreeError."""
    found = tree["solutions"]
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise TreeError("solutions: expected a list of objects")
    return [(read_text(one, "final_answer"), float(read_number(one, "value", NOT_EVALUATED))) for one in found]


def top_answer(record: Mapping[str, Any]) -> str | None:
    """The answer that a saved line stands for: its prediction, else the best solution of a beam, else the answer that
    the most valued path of the tree leads to. None where there is none."""
    if "prediction" in record:
        prediction = record["prediction"]
        return None if prediction is None else str(prediction["final_answer"])
    tree = record["react"]
    if "solutions" in tree:
        return next((answer for answer, _ in solutions(tree)), None)
    root = from_record(tree)
    answers = offline_inference(root, samples=max(1, max(len(node.children) for node in walk(root))))
    return answers[0].final_answer if answers else None

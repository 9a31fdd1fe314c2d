"""Decisions on finished trees."""

from __future__ import annotations

import pytest

from mcts.search.offline import offline_inference, pruned_nodes, top_answer
from mcts.search.voting import Candidate, decide
from mcts.trees.node import UNPARSABLE, Node, walk
from mcts.trees.record import from_record, to_record


def tree(*nodes: tuple[str, float, str]) -> Node:
    """(tag, value, final answer) of every node; Q is the value, visits 1."""
    record = {
        tag: {"text": tag, "value": value, "q_value": value, "visit_count": 1, "prior": 0.5, "final_answer": answer}
        for tag, value, answer in nodes
    }
    return from_record(record)


FORK = (("0", 0, ""), ("0.0", 0.9, ""), ("0.1", 0.2, "right"), ("0.0.0", 0.8, UNPARSABLE))


def test_pruning_avoids_a_branch_without_an_answer() -> None:
    assert [node.tag for node in offline_inference(tree(*FORK), prune=True)] == ["0.1"]
    assert offline_inference(tree(*FORK), prune=False) == []
    assert {node.tag for node in pruned_nodes(tree(*FORK))} == {"0.0", "0.0.0"}


def test_a_wider_beam_collects_answers_best_first() -> None:
    root = tree(("0", 0, ""), ("0.0", 0.9, ""), ("0.1", 0.2, "b"), ("0.0.0", 0.1, "a"), ("0.0.1", 0.7, "c"))
    assert [node.final_answer for node in offline_inference(root, beam_width=3)] == ["c", "b", "a"]
    assert [node.final_answer for node in offline_inference(root, beam_width=1)] == ["c"]


def test_children_beyond_the_samples_are_not_seen() -> None:
    root = tree(("0", 0, ""), ("0.0", 0.1, "a"), ("0.7", 0.9, "b"))
    assert [node.final_answer for node in offline_inference(root, samples=5)] == ["a"]


@pytest.mark.parametrize("strategy", ["value", "q_value", "visit_count", "puct"])
def test_every_strategy_ranks(strategy: str) -> None:
    root = tree(("0", 0, ""), ("0.0", 0.1, "a"), ("0.1", 0.9, "b"))
    root.children[1].visit_count, root.children[1].value_sum = 3, 2.7
    root.visit_count = 4
    expected = "a" if strategy == "puct" and root.children[1].q_value + 1.25 / 4 < 0.1 + 1.25 / 2 else "b"
    assert offline_inference(root, strategy=strategy)[0].final_answer == expected


def test_the_answer_of_a_line_is_found_in_every_kind_of_tree() -> None:
    chain = to_record(tree(("0", 0, ""), ("0.0", 0.5, ""), ("0.0.0", 0.5, "7")), searched=False)
    assert top_answer({"react": chain}) == "7"
    assert top_answer({"react": chain | {"solutions": [{"final_answer": "8"}]}}) == "8"
    assert top_answer({"react": chain | {"solutions": []}}) is None
    assert top_answer({"react": chain, "prediction": {"final_answer": "9"}}) == "9"
    assert top_answer({"react": chain, "prediction": None}) is None


def test_walking_is_breadth_first() -> None:
    root = tree(("0", 0, ""), ("0.0", 0, ""), ("0.10", 0, ""), ("0.2", 0, ""), ("0.0.0", 0, ""))
    assert [node.tag for node in walk(root)] == ["0", "0.0", "0.2", "0.10", "0.0.0"]


async def test_votes_group_equal_answers_and_break_ties_by_order() -> None:
    candidates = [Candidate(answer, value, f"0.{i}", 0) for i, (answer, value) in enumerate(
        [("1/2", -0.9), ("3", 0.8), ("0.5", -0.8), ("4", 0.1)])]  # fmt: skip

    async def halves(answers, prediction):  # type: ignore[no-untyped-def]
        return {answers[0], prediction} == {"1/2", "0.5"}

    majority = await decide(candidates, "majority", halves)
    assert majority is not None and (majority.final_answer, majority.votes) == ("1/2", 2)
    weighted = await decide(candidates, "value_weighted", halves)
    assert weighted is not None and weighted.final_answer == "3"
    tie = await decide(candidates, "majority", None)
    assert tie is not None and (tie.final_answer, tie.votes) == ("1/2", 1)
    assert await decide([], "majority", None) is None

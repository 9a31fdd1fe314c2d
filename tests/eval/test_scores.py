"""Scores and their intervals."""

import random
from itertools import combinations
from math import isclose

import pytest

from eval.report.scores import AVG10, accuracy, avg_at_10, by_group, mcnemar, mean_score, pass_at_k, wilson
from mcts.search.voting import Candidate, decide


def test_an_undecided_answer_is_counted_apart_and_is_never_right():
    score = accuracy([True, True, False, None])
    assert (score.percent, score.n, score.undecided) == (50.0, 4, 1)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    generator = random.Random(5)
    covered = 0
    for _ in range(2000):
        right = sum(generator.random() < 0.62 for _ in range(100))
        low, high = wilson(right, 100)
        covered += low <= 62 <= high
    assert 0.93 <= covered / 2000 <= 0.97


def test_the_interval_stays_inside_0_and_100():
    assert all(wilson(n, n)[1] == 100 and wilson(0, n)[0] == 0 for n in range(1, 400))
    assert wilson(0, 0) == (0, 100)


def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_one():
    samples = [True, False, False, True, False]
    subsets = list(combinations(samples, 2))
    assert isclose(pass_at_k(5, 2, 2), sum(any(subset) for subset in subsets) / len(subsets))
    with pytest.raises(ValueError, match="at least 6"):
        pass_at_k(5, 2, 6)


async def test_votes_count_equal_answers_and_ties_go_to_the_first():
    async def same(answers, prediction):
        return float(answers[0]) == float(prediction)

    async def winner(vote, **values):
        cast = [Candidate(answer.strip("_").replace("_", "."), value, answer, 0) for answer, value in values.items()]
        decision = await decide(cast, vote, same)
        return None if decision is None else decision.tag

    assert await winner("majority", _1=0, _2=0, _2_0=0) == "_2"
    assert await winner("majority", _1=0, _2=0) == "_1"
    assert await winner("value_weighted", _1=0.9, _2=-0.5, _2_0=-0.5) == "_1"
    assert await winner("majority") is None


def test_groups_and_means():
    groups = by_group(["b", "a", "b"], [True, False, None])
    assert [(key, score.percent) for key, score in groups.items()] == [("a", 0), ("b", 50)]
    assert mean_score([1.0, 0.0]).percent == 50


def test_avg_at_10_is_the_mean_of_seven_figures():
    figures = dict(zip(AVG10, [84.3, 49.7, 67.2, 82.7, 74.0, 86.8, 93.8], strict=True))
    assert round(avg_at_10(figures), 1) == 76.9
    with pytest.raises(ValueError, match="mawps"):
        avg_at_10({name: 1.0 for name in AVG10 if name != "mawps"})


def test_mcnemar_counts_what_only_one_of_two_solves():
    first, second = [True] * 9 + [False, True, True], [False] * 9 + [True, True, True]
    only_first, only_second, p = mcnemar(first, second)
    assert (only_first, only_second) == (9, 1)
    assert p == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    assert mcnemar([True, False], [False, True])[2] == 1.0

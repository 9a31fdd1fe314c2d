"""The rival of the benchmarks searches as the published description says: its trees are ours."""

from __future__ import annotations

import asyncio

import pytest

from mcts.markup import make_markup
from scripts.bench import lockstep, scripted
from scripts.bench.published import LockStep, grow


def test_mcts_in_lock_step_grows_our_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, observations and visit counts, of as many simulations."""
    monkeypatch.setattr(lockstep, "TEXTS", lockstep.TEXTS[:3])
    monkeypatch.setattr(lockstep, "QUESTIONS", 3)
    markup = make_markup("react_sft", "\n")
    rival = LockStep(lockstep.Batches(scripted.ARITHMETIC), markup, lockstep.TEXTS, lambda work: list(map(grow, work)))
    rival.monte_carlo(8, 5, lockstep.C_PUCT)
    trees, _ = asyncio.run(lockstep.ours(scripted.Scripted(), rival.rounds))
    assert rival.rounds == 8
    assert not list(lockstep.differing(rival.roots, trees))
    assert sum(len(tree) for tree in trees) == 3 * (1 + 8 * 5)


def test_a_step_beam_in_lock_step_keeps_the_best() -> None:
    markup = make_markup("react_sft", "\n")
    rival = LockStep(lockstep.Batches(scripted.ARITHMETIC), markup, lockstep.TEXTS[:2], lambda w: list(map(grow, w)))
    rival.step_beam(3, 5, 4)
    for root in rival.roots:
        assert len(root.children) == 15
        best = sorted(root.children, key=lambda child: child.value, reverse=True)
        grown = [child for child in root.children if child.children]
        assert grown and set(map(id, grown)) <= set(map(id, best[:3]))
        assert all(len(child.children) == 5 for child in grown)

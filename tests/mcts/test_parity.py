"""Trees and picks of the published system, reproduced."""

from __future__ import annotations

from pathlib import Path

from tests.parity import compare_picks, compare_trees


def test_golden_trees_and_picks_come_out_the_same(reference: Path) -> None:
    assert compare_trees(reference / "golden") == (96, 96)
    assert compare_picks(reference / "golden") == (768, 768)

"""Run output-space shaping (ToRA): imitate, sample, let a teacher correct, train again, compare.

arbor shape --config configs/shape/tiny.yaml [--seed 2] [--output DIR]

The file is one of rounds (`arbor rounds`) with a block `shaping`; a round with `search` samples with it, and its
examples are the valid and the corrected solutions. The same command goes on wherever it was killed.
"""

from __future__ import annotations

from pathlib import Path

from arbor.commands import _options as options
from arbor.commands.rounds import run, tools
from mcts.config import load_keys
from models.training.shaped_rounds import ShapingRounds, ShapingRunner


@options.command(__doc__)
@options.keys("YAML of the rounds and of the shaping")
@options.live
def command(config: Path, overrides: tuple[str, ...], live: bool) -> None:
    run(ShapingRunner(load_keys(ShapingRounds, config, overrides), tools(live=live), config.parent))

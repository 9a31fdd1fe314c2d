"""Train policy and value on examples (JSONL): imitation, AlphaMath, OVM, SVPO.

arbor train --config configs/train/tiny.yaml --set examples=[FILE] --set output=DIR
accelerate launch --config_file configs/train/fsdp.yaml scripts/train.py --config configs/train/alphamath_7b.yaml

The same command continues a training that was stopped. The model is in DIR/model when it is finished.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from arbor.commands import _options as options
from arbor.commands._live import Display, TrainFacts
from arbor.commands._running import when_stopped
from mcts.config import load_keys
from models.training.settings import TrainSettings


@options.command(__doc__)
@options.keys("YAML of a training")
@click.option("--overwrite", is_flag=True, help="replace what another training left in `output`")
@options.live
def command(config: Path, overrides: tuple[str, ...], overwrite: bool, live: bool) -> None:
    settings = load_keys(TrainSettings, config, overrides)
    from models.engines.folder import quiet_transformers
    from models.training.trainer import Trainer

    quiet_transformers()
    trainer = Trainer(settings, overwrite=overwrite)
    shown = Display(TrainFacts(trainer)) if live and trainer.main else nullcontext()
    with when_stopped(lambda: f"{settings.output}: the same command goes on from the last checkpoint"), shown:
        folder = trainer.run()
    if trainer.main:
        print(folder)

"""Trains policy and value on examples (JSONL): imitation, AlphaMath, OVM, SVPO.

python scripts/train.py --config configs/train/tiny.yaml --set examples=[FILE] --set output=DIR
accelerate launch --config_file configs/train/fsdp.yaml scripts/train.py --config configs/train/alphamath_7b.yaml

The same command continues a training that was stopped. The model is in DIR/model when it is finished.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcts.config import load_keys
from models.training.settings import TrainSettings
from scripts.assembly import run_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML of a training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key; repeatable")
    parser.add_argument("--overwrite", action="store_true", help="replace what another training left in `output`")
    arguments = parser.parse_args()
    settings = load_keys(TrainSettings, arguments.config, arguments.set)
    import transformers

    from models.training.trainer import Trainer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trainer = Trainer(settings, overwrite=arguments.overwrite)
    folder = trainer.run()
    if trainer.main:
        print(folder)
    return 0


if __name__ == "__main__":
    run_command(main)

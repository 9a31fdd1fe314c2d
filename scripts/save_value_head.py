"""Adds a value head to a model folder: `value_head.safetensors`, and `value_model: true` in config.json.

python scripts/save_value_head.py FOLDER

A new head starts with small random weights (`--seed`); training fills it. A published `value_head.pth` in the folder
is converted instead. An existing safetensors head is only replaced with --force.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import AutoConfig

from mcts.errors import UserError
from models.engines.folder import check_model_dir
from models.engines.value_head import PUBLISHED_NAME, SAFETENSORS_NAME, ValueHead, load_value_head, save_value_head
from scripts.assembly import run_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a causal language model folder (transformers)")
    parser.add_argument("--seed", type=int, default=0, help="of a new head's weights (default 0)")
    parser.add_argument("--force", action="store_true", help="replace an existing head")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed < 1 << 63:
        raise UserError(f"--seed {arguments.seed}: expected a whole number from 0 to {(1 << 63) - 1}")
    folder = check_model_dir(arguments.folder)
    if (folder / SAFETENSORS_NAME).exists() and not arguments.force:
        raise UserError(f"{folder / SAFETENSORS_NAME}: exists already; --force replaces it")
    if (folder / PUBLISHED_NAME).exists() and not (folder / SAFETENSORS_NAME).exists():
        head = load_value_head(folder)
    else:
        torch.manual_seed(arguments.seed)
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / 'config.json'}: {str(error).splitlines()[0]}") from None
        head = ValueHead(config.get_text_config().hidden_size)
    print(save_value_head(head, folder))
    return 0


if __name__ == "__main__":
    run_command(main)

"""Add a value head to a model folder: `value_head.safetensors`, and `value_model: true` in config.json.

arbor value-head FOLDER

A new head starts with small random weights (`--seed`); training fills it. A published `value_head.pth` in the folder
is converted instead. An existing safetensors head is only replaced with --force.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.commands import _options as options
from mcts.errors import UserError


@options.command(__doc__)
@click.argument("folder", type=options.FILE)
@options.seed("of a new head's weights")
@click.option("--force", is_flag=True, help="replace an existing head")
def command(folder: Path, seed: int, force: bool) -> None:
    import torch
    from transformers import AutoConfig

    from models.engines.folder import check_model_dir
    from models.engines.value_head import PUBLISHED_NAME, SAFETENSORS_NAME, ValueHead, load_value_head, save_value_head

    check_model_dir(folder)
    if (folder / SAFETENSORS_NAME).exists() and not force:
        raise UserError(f"{folder / SAFETENSORS_NAME}: exists already; --force replaces it")
    if (folder / PUBLISHED_NAME).exists() and not (folder / SAFETENSORS_NAME).exists():
        head = load_value_head(folder)
    else:
        torch.manual_seed(seed)
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / 'config.json'}: {str(error).splitlines()[0]}") from None
        head = ValueHead(config.get_text_config().hidden_size)
    print(save_value_head(head, folder))

"""Make a small adapter of what a training changed in a model, or a model folder of a base and an adapter.

arbor adapter --base DIR --model TRAINED --rank 16 --output ADAPTER
arbor adapter --base DIR --adapter ADAPTER --output MODEL

Adapters are those of peft, with value_head.safetensors beside them. MODEL has them merged: every engine loads it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from arbor.assembly import check_output, make_folder
from arbor.commands import _options as options
from mcts.errors import UserError


@options.command(__doc__)
@click.option("--base", type=options.FILE, required=True, metavar="DIR", help="the model that the training began with")
@click.option("--model", type=options.FILE, metavar="DIR", help="the trained model, to be told apart from the base")
@click.option("--adapter", type=options.FILE, metavar="DIR", help="the adapter, to be put over the base")
@click.option("--rank", type=options.Whole(1), default=16, help="of the adapter that is made")
@click.option("--dtype", type=click.Choice(("bfloat16", "float16", "float32")), default="bfloat16", help="of its file")
@options.output("folder that is written (never overwritten)")
def command(base: Path, model: Path | None, adapter: Path | None, rank: int, dtype: str, output: Path) -> None:
    from models.engines.folder import check_model_dir, quiet_transformers
    from models.training.adapters import apply, extract

    if (model is None) == (adapter is None):
        raise UserError("expected either --model TRAINED (an adapter is made) or --adapter ADAPTER (a model is made)")
    make_folder(output.parent)
    check_output(output, new=True)
    quiet_transformers()
    if adapter is not None:
        apply(check_model_dir(base), adapter, output)
    elif model is not None:
        lost = extract(check_model_dir(base), check_model_dir(model), output, rank, dtype)
        print(f"share of the change that rank {rank} in {dtype} does not hold: {lost:.4f}", file=sys.stderr)
    print(output)

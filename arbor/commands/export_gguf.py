"""Write a Llama model folder as GGUF, with its value head beside it, for the llama_cpp engine.

arbor export-gguf FOLDER OUTPUT_FOLDER --type F32 Q8_0 Q4_K_M

For Llama models whose tokenizer is byte-level BPE or SentencePiece BPE (tokenizer.json); other families have a
converter in llama.cpp itself. Q4_K needs rows of a multiple of 256 values: narrower matrices (the embedded model's)
fall back to Q5_0 or Q8_0 one by one, as llama.cpp chooses.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.commands import _options as options
from mcts.errors import UserError

TYPES = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")


@options.command(__doc__)
@click.argument("folder", type=options.FILE)
@click.argument("output", type=options.FILE)
@click.option(
    "--type",
    "kinds",
    cls=options.Several,
    type=click.Choice(TYPES),
    default=("F32", "Q8_0", "Q4_K_M"),
    help="a folder of OUTPUT each",
)
def command(folder: Path, output: Path, kinds: tuple[str, ...]) -> None:
    try:
        import gguf  # noqa: F401
        import llama_cpp  # noqa: F401
    except ImportError:
        raise UserError("gguf and llama-cpp-python are not installed: pip install -r requirements-llama.txt") from None
    from models.engines.folder import check_model_dir
    from models.engines.llama_cpp.export import export

    for path in export(check_model_dir(folder), output, kinds):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")

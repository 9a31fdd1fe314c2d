"""Which GGUF file a configuration means."""

from __future__ import annotations

from pathlib import Path

from mcts.errors import UserError


def gguf_file(model_dir: str | Path) -> Path:
    """The file, or the only one of a folder (of a split model the first). Raises UserError."""
    path = Path(model_dir)
    found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    firsts = [one for one in found if "-of-" not in one.name or "-00001-of-" in one.name]
    if not firsts:
        raise UserError(f"model_dir {path}: no .gguf file; name one with --set model_dir=FOLDER/MODEL.gguf")
    if len(firsts) > 1:
        raise UserError(f"model_dir {path}: {len(firsts)} .gguf files; name one, such as {firsts[0]}")
    return firsts[0]

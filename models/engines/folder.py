"""Model folders: is a model in it, and which one."""

from __future__ import annotations

import functools
import hashlib
import re
from functools import cache
from pathlib import Path

from mcts.errors import UserError

_EDGE_BYTES = 1 << 20
_HUB_NAME = re.compile(r"(?P<name>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?")
_HUB_TOKENIZER = ("*.json", "*.jinja", "tokenizer*", "*.model", "*.txt")
_HUB_WEIGHTS = ("*.safetensors", "value_head.pth")


def check_model_dir(model_dir: str | Path, need_config: bool = True) -> Path:
    """The folder, if a model (without `need_config`: its tokenizer) could be in it. Raises UserError that names what
    is missing.

    A name of the hub, `org/model` or `org/model@revision`, is fetched into the hub's cache where no such folder is.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        named = _HUB_NAME.fullmatch(str(model_dir))
        if not named or Path(folder.parts[0]).is_dir():
            raise UserError(f"{_missing(folder)}, or name another with --set model_dir=FOLDER")
        folder = from_hub(named["name"], named["revision"], need_config)
    if need_config and not (folder / "config.json").exists():
        raise UserError(f"model_dir {folder}: no config.json in it; expected the folder of a transformers model")
    return folder


def _missing(folder: Path) -> str:
    return f"model_dir {folder}: no such folder; put a model there (config.json, *.safetensors, tokenizer files)"


@cache
def from_hub(name: str, revision: str | None, weights: bool) -> Path:
    """The folder of a model of the hub, fetched where the hub's cache does not hold it. Code in it is never run.

    weights: with the weights, else the tokenizer alone. Raises UserError where it cannot be had.
    """
    from huggingface_hub import snapshot_download

    patterns = [*_HUB_TOKENIZER, *(_HUB_WEIGHTS if weights else ())]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # no network, no such model, no access: each in its own way
        asked = f"{name} at revision {revision}" if revision else name
        said = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{_missing(Path(name))}; as a name of the hub, {asked} cannot be fetched: "
            f"{type(error).__name__}: {said:.160}; fetch it where the hub can be reached and name its folder"
        ) from None


def weights_hash(model: Path) -> str:
    """16 hex digits that change with the weights of a folder, or of a GGUF file and the head beside it. Of a large file
    only the size and both ends are read."""
    digest = hashlib.sha256()
    names = ("*.safetensors", "*.bin", "*.pth", "*.gguf", "tokenizer.json")
    folder = model if model.is_dir() else model.parent
    found = {path for name in names for path in folder.glob(name)}
    if model != folder:
        found = {path for path in found if path.suffix != ".gguf"} | {model}
    for path in sorted(found):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            if size > 2 * _EDGE_BYTES:
                file.seek(-_EDGE_BYTES, 2)
            digest.update(file.read())
    return digest.hexdigest()[:16]


def quiet_transformers() -> None:
    """Keeps transformers from writing warnings and progress bars to standard error."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def content_hash(path: str | Path) -> str:
    """16 hex digits of the whole content of a file, or of the files of a folder (not of the folders in it). Raises
    UserError. A file that has not changed since is not read again in this process."""
    path = Path(path)
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        try:
            state = file.stat()
            content = _content(file, state.st_size, state.st_mtime_ns, state.st_ino)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
        digest.update(f"{file.name if path.is_dir() else ''} {content} ".encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _content(file: Path, size: int, changed: int, inode: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

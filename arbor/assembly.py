"""Puts the parts together for the commands: configuration → model, interpreter, grader, solver."""

from __future__ import annotations

import datetime
import importlib.metadata
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from arbor.shards import Shard
from mcts.errors import UserError
from mcts.jsonl import unwritable
from mcts.model import LanguageModel
from mcts.search.driver import Solver
from mcts.trees.file import TreeWriter, unfinished_output
from models.engines.config import RunConfig, check_run, recorded_fingerprint, run_fingerprint

PACKAGES = ("torch", "transformers", "sympy")
HOUSE = Path(__file__).resolve().parent.parent
TINY = Path(__file__).parent / "configs" / "tiny"
HELD_OUT = (HOUSE / "models/tiny/data/heldout.jsonl", HOUSE / "models/tiny/data/chains.jsonl")


def check_output(path: Path, *inputs: Path, new: bool = False) -> None:
    """Raises UserError, before any work, for a file that could not be written after it, that is an input, or that
    exists where it has to be `new`."""
    known = path.exists()
    if known and new:
        raise UserError(f"{path}: exists already; choose another --output")
    if known and any(one.exists() and path.samefile(one) for one in inputs):
        raise UserError(f"{path}: is an input, too; name another file to write")
    try:
        path.open("a").close()
    except OSError as error:
        raise unwritable(path, error) from None
    if not known:
        path.unlink()


def make_folder(path: Path) -> Path:
    """A folder for outputs. Raises UserError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None
    return path


async def grade(answers: Sequence[str], prediction: str) -> bool | None:
    """The search's grader: right, wrong, or None when it cannot be decided."""
    from eval.grading.grader import grade_async

    return (await grade_async(list(answers), prediction)).equal


def load_model(config: RunConfig) -> LanguageModel:
    """The engine that `config.engine` names, on `config.model_dir`. Raises UserError."""
    from models.engines.registry import load_engine

    check_run(config)
    return load_engine(config)


def load_tokenizer(config: RunConfig) -> tuple[Path, Any]:
    """The model folder of a configuration and its tokenizer (transformers). Raises UserError."""
    from models.engines.folder import check_model_dir
    from models.engines.text import load_tokenizer

    if config.model_dir is None:
        raise UserError("model_dir is not set: name the model whose tokens are meant, such as --set model_dir=FOLDER")
    folder = check_model_dir(config.model_dir)
    return folder, load_tokenizer(folder)


def load_markup(config: RunConfig) -> Any:
    """The markup of a configuration with its prompt and examples. Raises UserError."""
    from eval.grading.extract import extract
    from mcts.markup import make_markup

    try:
        return make_markup(
            config.prompt_wrap,
            config.step_delim,
            config.prompt_path,
            config.few_shot_path,
            config.num_few_shot,
            train_prompt=config.train_prompt,
            extract=extract,
            published=config.published_rules,
            keys=config.chat_keys(),
        )
    except OSError as error:
        raise UserError(f"{error.filename}: prompt file: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"few-shot examples: {error}") from None


def describe(config: RunConfig) -> dict[str, Any]:
    """What is written beside every tree: the configuration and its fingerprint, the model, versions."""
    from models.engines.registry import describe_model, engine_versions

    model = describe_model(config)  # before any output is made
    return {
        "fingerprint": run_fingerprint(config, model["weights"]),
        "config": config.model_dump(mode="json", exclude_defaults=True),
        "model": model,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | engine_versions(config),
    }


@asynccontextmanager
async def open_solver(
    config: RunConfig, model: LanguageModel, meta: dict[str, Any], seed: int
) -> AsyncIterator[Solver]:
    """A solver with a running interpreter."""
    from mcts.interpreter import ForkInterpreter
    from mcts.search.rollouts import RolloutSolver

    async with ForkInterpreter(config.limits, profile=config.code_profile, sandbox=config.sandbox) as interpreter:
        kind = Solver if config.value_from == "head" else RolloutSolver
        yield kind(config, model, load_markup(config), interpreter, grade, seed, meta)


def choose_seed(config: RunConfig, writer: TreeWriter | None) -> int:
    """The configured seed, else that of the run which is continued, else a fresh one (it stands in every line)."""
    if config.seed is not None:
        return config.seed
    if writer is not None and writer.seed is not None:
        return writer.seed
    return secrets.randbits(32)


def output_path(
    questions: Path, config: RunConfig, fingerprint: str, total: int, resume: bool, shard: Shard | None = None
) -> Path:
    """The default output `{questions}.{mode}.{model}.{time}.jsonl`: an unfinished one of the same run, or a new one.
    A shard's name stands before the time."""
    from models.engines.registry import describe_model

    model = describe_model(config)["name"] if config.model_dir is None else Path(config.model_dir).resolve().name
    pattern = questions.with_name(".".join([questions.name, config.mode, model, *([shard.name] if shard else [])]))
    known = unfinished_output(pattern, "." + "[0-9]" * 14, fingerprint, total, recorded_fingerprint) if resume else None
    stamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
    return known or pattern.with_name(f"{pattern.name}.{stamp}.jsonl")


def shown(path: Path) -> Path:
    """A path as people read it: relative to the working folder where it lies in it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def open_writer(path: Path, meta: dict[str, Any], progress: Any, *, resume: bool = True) -> TreeWriter:
    """A tree file open for a run that `meta` describes; `progress.see` hears of what it holds. Raises UserError."""
    writer = TreeWriter(path, meta["fingerprint"], recorded_fingerprint)
    writer.open(resume=resume, seen=progress.see)
    return writer

"""Puts the parts together for the commands: configuration → model, interpreter, grader, solver."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from eval.grading.extract import extract
from eval.grading.grader import Verdict, grade_async
from mcts.config import Config, check_search
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter, InterpreterError
from mcts.markup import Markup, make_markup
from mcts.model import LanguageModel
from mcts.search.driver import Solver
from mcts.search.rollouts import RolloutSolver
from mcts.trees.file import TreeWriter, unfinished_output

INTERRUPTED = 130
PACKAGES = ("torch", "transformers", "sympy")


def run_command(main: Callable[[], int]) -> None:
    """Runs a command's main function: bad input is one line on standard error and exit code 2."""
    try:
        code = main()
    except (UserError, InterpreterError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, the same command goes on from there", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # an output that cannot be written
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        code = 2
    sys.exit(code)


def check_output(path: Path, *inputs: Path) -> None:
    """Raises UserError, before any work, for a file that could not be written after it, or that is an input."""
    known = path.exists()
    if known and any(one.exists() and path.samefile(one) for one in inputs):
        raise UserError(f"{path}: is an input, too; name another file to write")
    try:
        path.open("a").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    if not known:
        path.unlink()


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--custom_cfg", required=True, metavar="CFG", help="YAML configuration")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides a key of the configuration; repeatable",
    )


async def grade(answers: Sequence[str], prediction: str) -> bool | None:
    """The search's grader: right, wrong, or None when it cannot be decided."""
    verdict = (await grade_async(list(answers), prediction)).verdict
    return None if verdict is Verdict.UNDECIDED else verdict is Verdict.EQUAL


def load_model(config: Config) -> LanguageModel:
    """The engine that `config.engine` names, on `config.model_dir`. Raises UserError."""
    from scripts.engines import check_model, load_engine

    check_search(config)
    check_model(config)
    return load_engine(config)


def load_markup(config: Config) -> Markup:
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
        )
    except OSError as error:
        raise UserError(f"{error.filename}: prompt file: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"few-shot examples: {error}") from None


def describe(config: Config) -> dict[str, Any]:
    """What is written beside every tree: the configuration and its fingerprint, the model, versions."""
    from models.engines.folder import weights_hash
    from scripts.engines import check_model, engine_versions

    path = check_model(config)  # before any output is made
    weights = weights_hash(path)
    return {
        "fingerprint": f"{config.fingerprint()}-{weights}",
        "config": config.model_dump(mode="json", exclude_defaults=True),
        "model": {"name": path.resolve().name, "weights": weights},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | engine_versions(config),
    }


@asynccontextmanager
async def open_solver(config: Config, model: LanguageModel, meta: dict[str, Any], seed: int) -> AsyncIterator[Solver]:
    """A solver with a running interpreter."""
    async with ForkInterpreter(config.limits, profile=config.code_profile, sandbox=config.sandbox) as interpreter:
        kind = Solver if config.value_from == "head" else RolloutSolver
        yield kind(config, model, load_markup(config), interpreter, grade, seed, meta)


def choose_seed(config: Config, writer: TreeWriter | None) -> int:
    """The configured seed, else that of the run which is continued, else a fresh one (it stands in every line)."""
    if config.seed is not None:
        return config.seed
    if writer is not None and writer.seed is not None:
        return writer.seed
    return secrets.randbits(32)


def output_path(qaf: Path, config: Config, fingerprint: str, total: int, resume: bool) -> Path:
    """The default output, `{qaf}.{mode}.{model}.{time}.jsonl`: an unfinished one of the same run, or a new one."""
    assert config.model_dir is not None
    pattern = qaf.with_name(f"{qaf.name}.{config.mode}.{Path(config.model_dir).resolve().name}")
    unfinished = unfinished_output(pattern, "." + "[0-9]" * 14, fingerprint, total) if resume else None
    stamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
    return unfinished or pattern.with_name(f"{pattern.name}.{stamp}.jsonl")

"""The options that commands share: one name for one thing, with the published spellings beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from arbor.assembly import TINY
from arbor.shards import Shard
from mcts.errors import UserError
from mcts.search.rules import PATH_VALUES
from models.engines.config import load_config

Function = Callable[..., Any]
FILE = click.Path(path_type=Path)


class Several(click.Option):
    """An option that takes every word up to the next option: --trees A B C."""

    def __init__(self, *arguments: Any, **keys: Any) -> None:
        super().__init__(*arguments, **{**keys, "multiple": True})


class Command(click.Command):
    """A command whose help is the docstring of its file, as it stands there."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """`Several` options are repeated before each of their words."""
        several = {name for one in self.params if isinstance(one, Several) for name in one.opts}
        spread: list[str] = []
        current, first = "", False
        for word in arguments:
            name, equals, _ = word.partition("=")
            if word.startswith("-") and len(word) > 1:
                current, first = (name if name in several and not equals else ""), True
                spread.append(word)
            else:
                spread += [word] if first or not current else [current, word]
                first = False
        return super().parse_args(context, spread)

    def format_help_text(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\n{self.help}\n")


def command(text: str | None) -> Callable[[Function], Command]:
    """Makes a function the command of its file. text: the file's docstring."""
    settings = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
    return click.command(cls=Command, help=text, context_settings=settings)


class Whole(click.ParamType[int]):
    """A whole number from `low` to `high`."""

    name = "N"

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            number = self.low - 1
        if number < self.low or (self.high is not None and number > self.high):
            bounds = f"at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
            name = max(parameter.opts, key=len) if parameter is not None else "value"
            raise UserError(f"{name} {value}: expected a whole number, {bounds}")
        return number


SEED = Whole(0, (1 << 63) - 1)


def config(default: str = "") -> Callable[[Function], Function]:
    """--config, --set and --seed of a search; the function gets the checked configuration as `config`.

    default: the configuration where none is named; without it one has to be.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def checked(path: Path, overrides: tuple[str, ...], seed: int | None, **others: Any) -> Any:
            seeded = [] if seed is None else [f"seed={seed}"]
            return function(config=load_config(path, [*overrides, *seeded]), **others)

        words = "YAML file: method, markup, model, engine"
        usual: dict[str, Any] = {"required": True}
        if default:
            usual = {"default": default, "show_default": "step beam on the embedded model"}
        options = (
            click.option("--config", "--custom_cfg", "path", type=FILE, metavar="FILE", help=words, **usual),
            overrides,
            click.option("--seed", type=SEED, help="of the sampling noise  [default: the configuration's]"),
        )  # fmt: skip
        return stacked(checked, options)

    return decorate


def keys(words: str) -> Callable[[Function], Function]:
    """--config, --set, --seed and --output of a training or of rounds, as `config` and `overrides`."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def gathered(overrides: tuple[str, ...], seed: int | None, output: str | None, **others: Any) -> Any:
            given = {"seed": seed, "output": output}
            own = (f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)
            return function(overrides=(*overrides, *own), **others)

        options = (
            click.option("--config", "--custom_cfg", type=FILE, required=True, metavar="FILE", help=words),
            overrides,
            click.option("--seed", type=SEED, help="the key `seed`"),
            click.option("--output", metavar="DIR", help="the key `output`"),
        )
        return stacked(gathered, options)

    return decorate


def stacked(function: Function, options: Sequence[Callable[[Function], Function]]) -> Function:
    """A function under some options, the first of them shown first."""
    for option in reversed(options):
        function = option(function)
    return function


overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="overrides a key of the configuration; repeatable"
)
live = click.option("--live", is_flag=True, help="show what the run does: rates, engine, code, accuracy, time left")
limit = click.option("--limit", type=Whole(1), help="only the first N questions  [default: all]")


shard = click.option(
    "--shard", callback=lambda context, option, text: None if text is None else Shard.parse(text), metavar="I/N",
    help="only the I-th of every N questions (I from 0, or from 1: N/N is 0/N); `arbor merge` joins the files",
)  # fmt: skip


def trees(words: str, *names: str, several: bool = False, required: bool = True) -> Callable[[Function], Function]:
    """--trees and its other names: a Path as `trees`, or a tuple of them."""
    kind = Several if several else click.Option
    return click.option("--trees", *names, "trees", cls=kind, type=FILE, required=required, metavar="FILE", help=words)


def files(metavar: str, missing: str = "") -> Callable[[Function], Function]:
    """Files as arguments, or the same behind --trees: a tuple of Paths as `files`. missing: what is said where there
    are none, if some have to be."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def gathered(files: tuple[Path, ...], trees: tuple[Path, ...], **others: Any) -> Any:
            if missing and not (files or trees):
                raise UserError(missing)
            return function(files=(*files, *trees), **others)

        argument = click.argument("files", nargs=-1, type=FILE, metavar=metavar)
        return stacked(gathered, (argument, trees(f"the same as {metavar}", several=True, required=False)))

    return decorate


def path_value(function: Function) -> Function:
    """--path-value of a command that judges solutions by their values."""
    kind = click.Choice(list(PATH_VALUES))
    words = "what a solution is worth: its last step's value, or the least, mean or product of all its steps'"
    return click.option("--path-value", type=kind, show_default="that of the sampling", help=words)(function)


def output(words: str, required: bool = True) -> Callable[[Function], Function]:
    return click.option("--output", type=FILE, required=required, metavar="PATH", help=words)


def seed(words: str, default: int = 0) -> Callable[[Function], Function]:
    return click.option("--seed", type=SEED, default=default, help=words)


def policy(function: Function) -> Function:
    """--policy of grading, whose rules take a while to import."""
    from eval.grading.policies import POLICIES

    kind = click.Choice(list(POLICIES))
    return click.option("--policy", type=kind, default="default", help="how answers are compared")(function)


def as_json(words: str = "text") -> Callable[[Function], Function]:
    return click.option("--json", "as_json", is_flag=True, help=f"one JSON object instead of {words}")


def questions(words: str, *names: str, several: bool = False, **keys: Any) -> Callable[[Function], Function]:
    """--questions and its published names: a Path, or a tuple of them."""
    kind, shown = (Several, "FILE...") if several else (click.Option, "FILE")
    return click.option("--questions", "--qaf", *names, cls=kind, type=FILE, metavar=shown, help=words, **keys)


def configs(names: Sequence[str], words: str) -> Callable[[Function], Function]:
    """--configs, several; by default those of the embedded model by their `names`."""
    usual: dict[str, Any] = {"default": tuple(TINY / f"{name}.yaml" for name in names)}
    usual["show_default"] = f"{len(names)} of the embedded model"
    return click.option("--configs", "--config", cls=Several, type=FILE, metavar="FILE...", help=words, **usual)


def model(words: str) -> Callable[[Function], Function]:
    return click.option("--model", type=FILE, required=True, metavar="DIR", help=words)


EMBEDDED = str(TINY / "sbs_3_5.yaml")

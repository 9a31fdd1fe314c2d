"""The command `arbor`: one file of this folder a subcommand, imported when it is called.

A file NAME.py holds a click command named `command`; the first line of its docstring stands in `arbor --help`. Another
package adds a subcommand, or replaces one, by an entry point of the group `arbor.commands`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NoReturn

import click

GROUP = "arbor.commands"
FOLDER = Path(__file__).parent


def _own() -> list[str]:
    return [path.stem.replace("_", "-") for path in FOLDER.glob("[!_]*.py")]


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


class Arbor(click.Group):
    """A group that imports the file of a subcommand when it is called, and none of them for the list."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*_own(), *_others()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if (point := _others().get(name)) is not None:
            found = point.load()
        elif name in _own():
            found = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").command
        else:
            return None
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        others = _others()
        with formatter.section("Subcommands (arbor NAME --help)"):
            formatter.write_dl(
                [
                    (name, f"of {others[name].value}" if name in others else _first_line(name))
                    for name in self.list_commands(context)
                ]
            )


def _first_line(name: str) -> str:
    text = (FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return text.removeprefix('"""').partition("\n")[0].removesuffix('"""')


@click.group(cls=Arbor, context_settings={"help_option_names": ["-h", "--help"]})
def arbor() -> None:
    """Tree search for mathematical reasoning with a language model that is policy and value in one."""


def main(name: str | None = None, before: Sequence[str] = (), after: Sequence[str] = ()) -> NoReturn:
    """Runs `arbor`, or its subcommand `name` for a script of another name, and exits with its code.

    before, after: arguments around those of the command line.
    """
    from arbor.commands._running import leave, run

    chosen = None if name is None else arbor.get_command(click.Context(arbor), name)
    program = "arbor" if name is None else Path(sys.argv[0]).name
    leave(run(chosen or arbor, program, [*before, *sys.argv[1:], *after]))

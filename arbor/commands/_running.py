"""How a command ends: its exit code, and one line on standard error where it did not do its work."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from mcts.errors import UserError
from mcts.interpreter import InterpreterError

BAD_INPUT, INTERRUPTED, TERMINATED = 2, 130, 143
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(command: click.Command, program: str, arguments: list[str]) -> int:
    """Runs a command and returns its exit code: 2 after bad input or where an output cannot be written, 130 after
    Ctrl-C, 143 after SIGTERM, 1 where the reader of its output left."""
    with _terminations() as terminated:
        try:
            with command.make_context(program, arguments) as context:
                code = command.invoke(context)
            sys.stdout.flush()
            return code if type(code) is int else 0
        except click.exceptions.NoArgsIsHelpError as error:
            print(error.format_message(), file=sys.stderr)
            return BAD_INPUT
        except click.exceptions.Exit as error:  # --help
            return error.exit_code
        except click.ClickException as error:
            return _refuse(error.format_message())
        except (UserError, InterpreterError) as error:
            return _refuse(str(error))
        except KeyboardInterrupt as stop:
            word = "terminated" if terminated else "interrupted"
            print("; ".join([word, *getattr(stop, "__notes__", [])]), file=sys.stderr)
            return TERMINATED if terminated else INTERRUPTED
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            if error.filename is None and error.errno not in FULL:
                raise
            _drop_output(error)
            return _refuse(f"{error.filename or 'standard output'}: {error.strerror}")


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return BAD_INPUT


def _drop_output(error: OSError) -> None:
    """What standard output could not take is not tried again when Python ends."""
    if error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _terminations() -> Iterator[list[int]]:
    """SIGTERM ends the work as Ctrl-C does; the list holds the signal then."""
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def when_stopped(words: Callable[[], str]) -> Iterator[None]:
    """What the line after Ctrl-C or SIGTERM adds, where it comes in the body."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(words())
        raise

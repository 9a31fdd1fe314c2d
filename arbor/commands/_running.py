"""How a command ends: its exit code, and one line on standard error where it did not do its work."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

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
            _flush()
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
            _drop_output()
            return 1
        except OSError as error:
            if error.filename is None and error.errno not in FULL:
                raise
            _drop_output()
            return _refuse(f"{error.filename or 'standard output'}: cannot be written: {error.strerror}")


def leave(code: int) -> NoReturn:
    """Ends the process with `code`."""
    if code in (INTERRUPTED, TERMINATED):
        # Python would end itself by SIGINT where the interrupt had passed through an exec of text, as in an import.
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return BAD_INPUT


def _flush() -> None:
    """Writes out what was printed. Raises OSError with the name of what could not take it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def _drop_output() -> None:
    """What standard output could not take is not tried again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _terminations() -> Iterator[list[int]]:
    """SIGTERM ends the work as Ctrl-C does; the list holds the signal then."""
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # ignored, as in a command that a shell started in the background
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

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

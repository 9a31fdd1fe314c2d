"""Run snippets from standard input, separated by lines of `---`, one after another in one state:

echo 'print(6 * 7)' | python -m mcts.interpreter [--profile P] [--sandbox auto|required|off] [--timeout SECONDS]

Prints each observation. A snippet that was killed leaves the state that was before it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator
from typing import Literal

from mcts.interpreter import ForkInterpreter, InterpreterError, State
from mcts.interpreter.observation import PROFILES


def snippets(lines: Iterable[str]) -> Iterator[str]:
    """The texts between lines of `---`, each as soon as it is complete."""
    snippet: list[str] = []
    for line in lines:
        if line.strip() == "---":
            yield "".join(snippet)
            snippet = []
        else:
            snippet.append(line)
    if snippet:
        yield "".join(snippet)


async def converse(profile: str, sandbox: Literal["auto", "required", "off"], timeout: float) -> None:
    """timeout: seconds of wall time a snippet."""
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    async with ForkInterpreter(profile=profile, sandbox=sandbox, timeout_seconds=timeout) as interpreter:
        state: State | None = None
        for snippet in snippets(sys.stdin):
            if state is not None:
                state.announce(1)
            execution = await interpreter.run(state, snippet)
            state = execution.state
            print(execution.observation, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mcts.interpreter", description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="alphamath")
    parser.add_argument("--sandbox", choices=("auto", "required", "off"), default="auto")
    parser.add_argument("--timeout", type=float, default=15.0, help="seconds of wall time for a snippet")
    try:
        asyncio.run(converse(**vars(parser.parse_args())))
    except InterpreterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

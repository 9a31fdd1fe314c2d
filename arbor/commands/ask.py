"""Search one question and print the solution step by step.

arbor ask "A garden is 7 m longer than it is wide. Its area is 744 square metres. How wide is it?"
arbor ask --config configs/mcts_sft.yaml --set model_dir=FOLDER "What is 3^7 mod 11?"

Without --config: step beam on the embedded model, which knows ten families of word problems and equations with one
whole-number answer (rectangles, ages, coins, savings, remainders ...; `arbor problems` writes some) and nothing else.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from arbor.assembly import check_output, choose_seed, describe, load_model, open_solver
from arbor.commands import _options as options
from arbor.commands._progress import Progress
from arbor.commands._running import when_stopped
from mcts.errors import UserError
from mcts.jsonl import write_lines
from mcts.question import Question
from mcts.trees.node import TOO_LONG, Node
from models.engines.config import RunConfig, check_run


def print_step(node: Node) -> None:
    """A new node, as it comes."""
    print(f"--- {node.tag}  (prior {node.prior:.2f})\n{node.text}", flush=True)


async def search(config: RunConfig, text: str, live: bool = False) -> dict[str, Any]:
    async with open_solver(config, load_model(config), describe(config), choose_seed(config, None)) as solver:
        question = Question(0, {"question": text}, "the question")
        if live:
            with Progress(1, live=True) as progress:
                progress.attach(solver)
                record = await solver.solve(question)
                progress.see(record)
                return record
        solver.watcher = print_step
        return await solver.solve(question)


def ask(config: RunConfig, text: str, output: Path | None, live: bool = False) -> None:
    """Searches one question, prints its steps as they come, and writes the record, if `output` is given."""
    if not text.strip():
        raise UserError("--question: expected a question, found an empty text")
    check_run(config)
    if output is not None:
        check_output(output, new=True)
    with when_stopped(lambda: "the question is not answered"):
        record = asyncio.run(search(config, text, live))
    prediction, meta = record["prediction"], record["meta"]
    if output is not None:
        write_lines(output, [record])
    print(f"\n{meta['samples']} steps sampled, {meta['tokens_computed']} tokens computed, {meta['wall_seconds']:.2f} s")
    if prediction is not None:
        print(f"answer: {prediction['final_answer']}  (node {prediction['tag']})")
        return
    reason = meta.get("no_answer", "the search found none")
    if reason == TOO_LONG:
        raise UserError(f"the question could not be searched: {reason}")
    print("no answer was found")
    print(f"no answer: {reason}", file=sys.stderr)


@options.command(__doc__)
@click.argument("question")
@options.config(options.EMBEDDED)
@options.output("tree file of one line (never overwritten)", required=False)
@options.live
def command(config: RunConfig, question: str, output: Path | None, live: bool) -> None:
    ask(config, question, output, live)

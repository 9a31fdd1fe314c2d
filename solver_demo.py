"""Searches the questions of a file, or one question, with the settings of a configuration.

python solver_demo.py --custom_cfg configs/tiny/sbs_3_5.yaml --qaf models/tiny/data/heldout.jsonl
python solver_demo.py --custom_cfg configs/tiny/mcts.yaml --question "Find the positive integer x with x^2 + 3x = 70."
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.data.questions import count_questions, read_questions
from mcts.errors import UserError
from mcts.question import Question
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter
from mcts.trees.node import Node
from models.engines.config import RunConfig, check_run, load_config, recorded_fingerprint
from scripts.assembly import (
    add_config_arguments,
    choose_seed,
    describe,
    load_markup,
    load_model,
    open_solver,
    output_path,
    run_command,
)


def parse_arguments(mode: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--qaf", "--question-answer-file", metavar="FILE", type=Path, help=".json or .jsonl")
    source.add_argument("--question", metavar="TEXT", help="one question, printed step by step")
    parser.add_argument("--output", metavar="FILE", type=Path, help="tree file (default: beside the question file)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue a run that was stopped (default)",
    )
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: expected at least 1")
    if arguments.question is not None and not arguments.question.strip():
        raise UserError("--question: expected a question, found an empty text")
    if mode is not None:
        arguments.set.append(f"mode={mode}")
    return arguments


def print_step(node: Node) -> None:
    """A new node, as it comes."""
    print(f"--- {node.tag}  (prior {node.prior:.2f})\n{node.text}", flush=True)


async def solve_one(config: RunConfig, text: str) -> int:
    model = load_model(config)
    async with open_solver(config, model, describe(config), choose_seed(config, None)) as solver:
        solver.watcher = print_step
        record = await solver.solve(Question(0, {"question": text}, "--question"))
    prediction, meta = record["prediction"], record["meta"]
    print(f"\n{meta['samples']} steps sampled, {meta['tokens_computed']} tokens computed, {meta['wall_seconds']:.2f} s")
    print(f"answer: {prediction['final_answer']}  (node {prediction['tag']})" if prediction else "no answer was found")
    return 0


class Progress:
    """The bar, and the running accuracy where answers are known."""

    def __init__(self, total: int, done: int) -> None:
        self.bar = tqdm(total=total, initial=done, unit="question", smoothing=0.1)
        self.right = self.graded = 0

    def tick(self, record: dict[str, Any]) -> None:
        self.count((record["prediction"] or {}).get("correct", False) if record.get("answer") is not None else None)

    def count(self, correct: bool | None) -> None:
        if correct is not None:
            self.graded += 1
            self.right += correct
            self.bar.set_postfix_str(f"right {self.right}/{self.graded}", refresh=False)
        self.bar.update()


async def solve_file(config: RunConfig, arguments: argparse.Namespace) -> int:
    qaf: Path = arguments.qaf
    total = count_questions(qaf, need_answer=config.is_sampling)
    total = min(total, arguments.limit or total)
    load_markup(config)
    meta = describe(config)
    path = arguments.output or output_path(qaf, config, meta["fingerprint"], total, arguments.resume)
    writer = TreeWriter(path, meta["fingerprint"], recorded_fingerprint)
    writer.open(resume=arguments.resume)
    if len(writer.done) < total:
        model = load_model(config)
        progress = Progress(total, len(writer.done))
        questions = itertools.islice(read_questions(qaf, need_answer=config.is_sampling), total)
        async with open_solver(config, model, meta, choose_seed(config, writer)) as solver:
            await run_file(solver, questions, writer, config.questions_in_flight, progress.tick)
        progress.bar.close()
        if progress.graded:
            print(f"right {progress.right} of {progress.graded} graded in this run", file=sys.stderr)
    writer.finish()  # a run that was killed after its last question left the lines as they came
    print(path)
    return 0


def main(mode: str | None = None) -> int:
    arguments = parse_arguments(mode)
    config = load_config(arguments.custom_cfg, arguments.set)
    check_run(config)
    if arguments.question is not None:
        return asyncio.run(solve_one(config, arguments.question))
    return asyncio.run(solve_file(config, arguments))


if __name__ == "__main__":
    run_command(main)

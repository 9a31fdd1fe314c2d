"""The main job on the embedded model: the same problems by several searches, and a table of what each one costs.

make demo                                            80 held-out problems by greedy, Maj@5, step beam and MCTS
python -m scripts.demo --n 500 --configs configs/tiny/*.yaml --qaf FILE --output runs/full
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.data.questions import count_questions, read_questions
from eval.report.scores import wilson
from mcts.errors import UserError
from mcts.search.driver import run_file
from mcts.trees.file import TreeWriter, read_tree_lines
from models.engines.config import RunConfig, load_config, recorded_fingerprint
from scripts.assembly import choose_seed, describe, load_model, open_solver, run_command
from solver_demo import Progress

CONFIGS = [Path("configs/tiny") / f"{name}.yaml" for name in ("greedy", "maj5", "sbs_1_5", "sbs_3_5", "mcts")]
HELD_OUT = Path("models/tiny/data/heldout.jsonl")
COLUMNS = ("method", "accuracy", "95 %", "s/question", "steps", "simulations", "computed", "reused", "÷ distinct")


@dataclass
class Row:
    """Sums over the questions of one tree file. seconds: wall time of the whole run."""

    questions: int = 0
    right: int = 0
    undecided: int = 0
    steps: int = 0
    answered: int = 0
    simulations: int = 0
    prompt_tokens: int = 0
    computed: int = 0
    reused: int = 0
    distinct: int = 0
    seconds: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        prediction, meta = record["prediction"], record["meta"]
        self.questions += 1
        if prediction is not None:
            self.answered += 1
            self.steps += prediction["tag"].count(".")
            self.right += prediction.get("correct") is True
            self.undecided += prediction.get("correct", False) is None
        self.simulations += meta["simulations"]
        self.prompt_tokens += meta["prompt_tokens"]
        self.computed += meta["tokens_computed"]
        self.reused += meta["tokens_reused"]
        self.distinct += distinct_tokens([record["react"], *record.get("runs", [])])

    def cells(self, name: str) -> tuple[str, ...]:
        low, high = wilson(self.right, self.questions)
        per = 1 / self.questions
        return (
            name,
            f"{100 * self.right * per:.1f}",
            f"{low:.1f}–{high:.1f}",
            f"{self.seconds * per:.2f}",
            f"{self.steps / max(1, self.answered):.1f}",
            f"{self.simulations * per:.0f}",
            f"{self.computed * per:.0f}",
            f"{100 * self.reused / max(1, self.prompt_tokens):.0f} %",
            f"{self.computed / max(1, self.distinct):.2f}",
        )


def distinct_tokens(trees: Iterable[dict[str, Any]]) -> int:
    """How many different prompts-so-far the trees of one question hold, one a token: what cannot be computed less.

    Steps that begin with the same tokens share them.
    """
    trie: dict[Any, Any] = {}
    count = 0
    for tree in trees:
        ends = {"": trie}
        for tag, node in tree.items():
            if tag == "solutions":
                continue
            at = ends[tag.rpartition(".")[0]]
            for token in node["token_ids"]:
                if token not in at:
                    at[token] = {}
                    count += 1
                at = at[token]
            ends[tag] = at
    return count


def table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = [COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    text = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(
            zip(line, widths, strict=True)))
        for line in lines
    ]  # fmt: skip
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


async def run(config: RunConfig, model: Any, qaf: Path, n: int, path: Path) -> float:
    """Searches the first `n` questions into `path` (continuing what is there) and returns the seconds it took."""
    meta = describe(config)
    writer = TreeWriter(path, meta["fingerprint"], recorded_fingerprint)
    writer.open(resume=True)
    progress = Progress(n, len(writer.done))
    progress.bar.set_description(path.stem)
    started = time.monotonic()
    async with open_solver(config, model, meta, choose_seed(config, writer)) as solver:
        questions = itertools.islice(read_questions(qaf), n)
        await run_file(solver, questions, writer, config.questions_in_flight, progress.tick)
    progress.bar.close()
    return time.monotonic() - started


def summarise(path: Path, seconds: float) -> Row:
    row = Row(seconds=seconds)
    for _, record in read_tree_lines(path):
        row.add(record)
    return row


def measure(arguments: argparse.Namespace, configs: list[tuple[Path, RunConfig]]) -> Iterator[tuple[str, ...]]:
    model = load_model(configs[0][1].model_copy(update={"need_value_func": True}))
    for path, config in configs:
        output = arguments.output / f"{path.stem}.jsonl"
        seconds = asyncio.run(run(config, model, arguments.qaf, arguments.n, output))
        yield summarise(output, seconds).cells(path.stem)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=80, help="problems (default 80)")
    parser.add_argument("--qaf", type=Path, default=HELD_OUT, help="question file (default: the held-out problems)")
    parser.add_argument("--configs", type=Path, nargs="+", default=CONFIGS, help="one row of the table each")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder of the tree files")
    arguments = parser.parse_args()
    arguments.n = min(arguments.n, count_questions(arguments.qaf))
    if arguments.n < 1:
        raise UserError(f"--n {arguments.n}: expected at least 1")
    configs = [(path, load_config(path)) for path in arguments.configs]
    rows = list(measure(arguments, configs))
    print(f"\n{arguments.n} problems of {arguments.qaf}, one answer each\n\n{table(rows)}\n")
    print("computed: tokens that went through the network, a question; reused: share of the prompts' tokens that did")
    print("not; ÷ distinct: tokens computed over the distinct tokens of the finished trees.\n")
    print(f"trees: {arguments.output}/*.jsonl", file=sys.stdout)
    return 0


if __name__ == "__main__":
    run_command(main)

"""Compare searches with Maj@k and best of k at the same number of generated tokens: a table, JSON and a picture.

arbor equal-tokens --sampled RUNS.jsonl --searches TREES.jsonl... --output DIR

--sampled is a tree file of n sampled solutions a question (`n_runs`), best after `arbor rerank`, which gives the
values that best of k needs. For each k every k consecutive runs are one try: small k are means over several tries.
Each search is compared with the first k runs that cost at least as many tokens as it does (McNemar's exact test over
the questions that both files have). The answers must be known. The picture needs matplotlib (requirements-dev.txt).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from arbor.assembly import grade, make_folder
from arbor.commands import _options as options
from eval.report.figures import FIGURES, draw
from eval.report.scores import mcnemar, wilson
from eval.report.table import markdown_table
from eval.report.tally import gold_answers
from mcts.errors import UserError
from mcts.jsonl import write_text_whole, write_whole
from mcts.search.voting import Candidate, decide
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import NOT_EVALUATED, walk

Right = dict[int, list[bool]]  # question → of each try, whether its answer is right


@dataclass
class Point:
    """accuracy: per cent, a mean over n questions, with its 95 % interval; tokens: generated a question."""

    method: str
    n: int
    accuracy: float
    low: float
    high: float
    tokens: float

    @classmethod
    def of(cls, method: str, right: Right, tokens: float) -> Point:
        accuracy = sum(sum(tries) / len(tries) for tries in right.values()) / len(right)
        low, high = wilson(accuracy * len(right), len(right))
        return cls(method, len(right), 100 * accuracy, low, high, tokens)


class Sampled:
    """The runs of a file: the answer of each, its value, and what they cost."""

    def __init__(self) -> None:
        self.candidates: dict[int, list[Candidate | None]] = {}
        self.verdicts: dict[tuple[int, str], bool] = {}
        self.valued, self.tokens, self.runs = True, 0.0, 0

    @classmethod
    async def read(cls, path: Path) -> Sampled:
        self = cls()
        for where, record in read_tree_lines(path):
            index, answers = index_of(where, record), gold_answers(where, record)
            runs: list[Candidate | None] = []
            for run, root in enumerate(read_roots(where, record)):
                leaf = next((node for node in walk(root) if node.answered and not node.children), None)
                if leaf is None:
                    runs.append(None)
                    continue
                runs.append(Candidate(leaf.final_answer, leaf.value, leaf.tag, run))
                self.valued &= leaf.value != NOT_EVALUATED
                self.verdicts[index, leaf.final_answer] = bool(await grade(answers, leaf.final_answer))
            self.candidates[index] = runs
            self.tokens += record["meta"]["tokens_generated"] / len(runs)
        self.tokens /= len(self.candidates)
        self.runs = min(map(len, self.candidates.values()))
        if self.runs < 2:
            raise UserError(f"{path}: one run a question; expected several (n_runs)")
        return self

    async def tries(self, k: int, best: bool) -> Right:
        """Every k consecutive runs, decided by their votes or by the highest value."""
        right: Right = {}
        for index, runs in self.candidates.items():
            right[index] = []
            for start in range(0, self.runs - k + 1, k):
                found = [one for one in runs[start : start + k] if one is not None]
                found = [max(found, key=lambda one: one.value)] if best and found else found
                decision = await decide(found, "majority", grade)
                right[index].append(decision is not None and self.verdicts[index, decision.final_answer])
        return right


def index_of(where: str, record: dict[str, Any]) -> int:
    try:
        return int(record["meta"]["index"])
    except (KeyError, TypeError):
        raise UserError(f"{where}: no meta.index; expected trees of this version's searches") from None


def read_search(path: Path) -> tuple[Right, float]:
    right: Right = {}
    tokens = 0.0
    for where, record in read_tree_lines(path):
        right[index_of(where, record)] = [(record.get("prediction") or {}).get("correct") is True]
        tokens += record["meta"]["tokens_generated"]
    return right, tokens / len(right)


def against(name: str, right: Right, tokens: float, sampled: Sampled, tries: dict[str, dict[int, Right]]) -> list[str]:
    """The search against the first k runs of at least its cost, for each way to decide them."""
    cells = [name]
    for by_k in tries.values():
        k = next((k for k in sorted(by_k) if k * sampled.tokens >= tokens), max(by_k))
        common = sorted(right.keys() & by_k[k].keys())
        if not common:
            raise UserError(f"{name}: no question in common with the sampled file")
        gained, lost, p = mcnemar([right[i][0] for i in common], [by_k[k][i][0] for i in common])
        short = " (fewer tokens)" if k * sampled.tokens < tokens else ""
        cells.append(f"k = {k}{short}: gained {gained}, lost {lost} of {len(common)}, p = {p:.2g}")
    return cells


async def compare(runs: Path, searches: Sequence[Path], output: Path) -> None:
    sampled = await Sampled.read(runs)
    ks = [k for k in (1, 2, 3, 5, 8, 12, 16, 20, 24, 32, 48, 64) if k <= sampled.runs]
    ways = {"Maj": False, "best": True} if sampled.valued else {"Maj": False}
    tries = {way: {k: await sampled.tries(k, best) for k in ks} for way, best in ways.items()}
    points = [
        Point.of(f"{way} @ {k}", right, k * sampled.tokens) for way, by_k in tries.items() for k, right in by_k.items()
    ]
    tests = []
    for path in searches:
        right, tokens = read_search(path)
        common = {index: one for index, one in right.items() if index in sampled.candidates}
        tests.append(against(path.stem, right, tokens, sampled, tries))
        points.append(Point.of(path.stem, common, tokens))
    rows = [[p.method, str(p.n), f"{p.accuracy:.1f} ({p.low:.1f}–{p.high:.1f})", f"{p.tokens:.0f}"] for p in points]
    text = markdown_table(("method", "n", "accuracy % (95 %)", "tokens generated"), rows)
    text += "\n\n" + markdown_table(("search", *(f"against {way} @ k" for way in tries)), tests)
    make_folder(output)
    write_text_whole(output / "curve.json", json.dumps([asdict(one) for one in points], indent=1) + "\n")
    write_text_whole(output / "curve.md", f"{text}\n")
    with write_whole(output / "curve.png") as file:
        draw(FIGURES["accuracy"], {"points": [asdict(one) for one in points]}, file)
    print(text)


@options.command(__doc__)
@click.option("--sampled", type=options.FILE, required=True, help="tree file of several runs a question")
@click.option(
    "--searches",
    "--trees",
    cls=options.Several,
    type=options.FILE,
    required=True,
    metavar="FILE...",
    help="tree files of the same questions",
)
@options.output("folder of curve.md, curve.json and curve.png")
def command(sampled: Path, searches: tuple[Path, ...], output: Path) -> None:
    asyncio.run(compare(sampled, searches, output))

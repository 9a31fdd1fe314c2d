"""What decides whether search pays on chains, from finished trees: depth, per-step success, recovery, sibling AUC.

    python -m models.tiny.measure TREES.jsonl... [--seed 3 --n 600 --split test]

--seed, --n and --split are those that the questions were written with (`models.tiny.problems --family chains`). Trees
of sampled solutions (`n_runs`) give the policy's success; in those of a step beam equal siblings are one, but their
values give the AUC. A step is right if it reads its entry as the question means it, whatever was found below it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mcts.errors import UserError
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import NOT_EVALUATED, Node
from models.tiny.problems import SEEDS, SPLITS, Problem, generate

PRINTED = re.compile(r"<output>\n(-?\d+)\n")


@dataclass
class Facts:
    """Counts over some trees. steps: of entries, after right ones only; seen: wrong ones that print another number than
    0; strayed, recovered: answers after a wrong step, and right ones among them; rank_sum, pairs: 1, ½, 0 for
    each right and wrong sibling, as their values order them; depths: steps of all solutions."""

    steps: int = 0
    right: int = 0
    seen: int = 0
    strayed: int = 0
    recovered: int = 0
    rank_sum: float = 0.0
    pairs: int = 0
    depths: int = 0
    answers: int = 0

    def summary(self) -> dict[str, float | int | None]:
        def share(part: float, whole: int) -> float | None:
            return round(part / whole, 3) if whole else None

        return {
            "depth": share(self.depths, self.answers),
            "p": share(self.right, self.steps),
            "steps": self.steps,
            "wrong steps that show": share(self.seen, self.steps - self.right),
            "recovery": share(self.recovered, self.strayed),
            "sibling AUC": share(self.rank_sum, self.pairs),
            "pairs": self.pairs,
        }


def judge(node: Node, problem: Problem, facts: Facts, alive: bool = True) -> None:
    """Counts what is below a node whose path is right (`alive`) or not."""
    assert problem.chain is not None
    entries = problem.chain.entries
    at = node.depth - 1  # the first step is the start
    code = entries[at].code if 0 <= at < len(entries) else None
    verdicts = [] if code is None else [(child, code in child.action_input.splitlines()) for child in node.children]
    for child, right in verdicts if alive else ():
        facts.steps += 1
        facts.right += right
        printed = PRINTED.search(child.text)
        facts.seen += not right and (printed is None or int(printed[1]) != 0)
    if alive:
        for rank in ranks(verdicts):
            facts.pairs, facts.rank_sum = facts.pairs + 1, facts.rank_sum + rank
    for child in node.children:
        judge(child, problem, facts, alive and dict(verdicts).get(child, True))
    if node.answered and not node.children:
        facts.answers, facts.depths = facts.answers + 1, facts.depths + node.depth
        facts.strayed += not alive
        facts.recovered += not alive and node.final_answer == str(problem.answer)


def ranks(verdicts: list[tuple[Node, bool]]) -> Iterator[float]:
    """For each right and wrong sibling with values: whether the right one's is higher."""
    judged = [(node.value, right) for node, right in verdicts if node.value != NOT_EVALUATED]
    better_ones, worse_ones = ([value for value, right in judged if right is side] for side in (True, False))
    for better, worse in product(better_ones, worse_ones):
        yield 1.0 if better > worse else 0.5 if better == worse else 0.0


def measure(paths: list[Path], problems: dict[str, Problem]) -> dict[str, dict[str, float | int | None]]:
    """Family → its facts, and "all"; trees of other questions are passed over."""
    found: dict[str, Facts] = defaultdict(Facts)
    for path in paths:
        for where, record in read_tree_lines(path):
            if (problem := problems.get(record["question"])) is not None:
                for root in read_roots(where, record):
                    judge(root, problem, found[problem.family])
                    judge(root, problem, found["all"])
    return {family: facts.summary() for family, facts in sorted(found.items())}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=SEEDS["test"])
    parser.add_argument("--n", type=int, default=600)
    parser.add_argument("--split", choices=tuple(SPLITS), default="test")
    options = parser.parse_args(arguments)
    problems = {one.question: one for one in generate(options.seed, options.n, options.split, "chains")}
    try:
        found = measure(options.trees, problems)
    except UserError as error:
        parser.error(str(error))
    for family, facts in found.items():
        print(json.dumps({"family": family, **facts}))


if __name__ == "__main__":
    main()

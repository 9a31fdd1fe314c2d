"""Times and judges the grader beside math-verify on the same pairs.

python scripts/bench/grader.py [--pairs FILE] [--outputs FILE...] [--golds FOLDER] [--limit 2000] [--rival PYTHON]

--pairs    labelled pairs (gold, prediction, equal): right, wrongly accepted, wrongly rejected, undecided of both.
--outputs  ToRA-style files: the first --limit pairs (answer of the trajectory against the gold) are timed.
--golds    a folder of data sets: --limit golds with one token changed; how many are accepted all the same.
--rival    a Python interpreter that has math-verify installed (it pins other versions of the parser than ours may).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eval.data.datasets import load
from eval.grading.grader import grade_all
from eval.report.rows import read_rows
from mcts.jsonl import read_objects

RIVAL = """
import json, sys, time, importlib.metadata
from math_verify import parse, verify
started, verdicts = time.perf_counter(), []
for gold, prediction in json.load(sys.stdin):
    try:
        verdicts.append(bool(verify(parse("$" + gold + "$"), parse("$" + prediction + "$"))))
    except Exception:
        verdicts.append(None)
version = importlib.metadata.version("math-verify")
print(json.dumps({"version": version, "seconds": time.perf_counter() - started, "verdicts": verdicts}))
"""

Pair = tuple[str, str]


def ours(pairs: list[Pair]) -> tuple[list[bool | None], float]:
    """Verdicts and seconds, from a cold start (the workers' own start included)."""
    started = time.perf_counter()
    verdicts = [found.equal for found in grade_all(pairs)]
    return verdicts, time.perf_counter() - started


def rival(python: str, pairs: list[Pair]) -> tuple[list[bool | None], float, str]:
    run = subprocess.run([python, "-c", RIVAL], input=json.dumps(pairs), capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{python}: {run.stderr.strip().splitlines()[-1]}")
    result = json.loads(run.stdout.splitlines()[-1])
    return result["verdicts"], result["seconds"], f"math-verify {result['version']}"


def judge(labels: list[bool], verdicts: list[bool | None]) -> str:
    pairs = list(zip(labels, verdicts, strict=True))
    counts = {
        "right": sum(label is found for label, found in pairs),
        "wrongly accepted": sum(found is True and not label for label, found in pairs),
        "wrongly rejected": sum(found is False and label for label, found in pairs),
        "undecided": verdicts.count(None),
    }
    return ", ".join(f"{key} {count}" for key, count in counts.items())


def counted(verdicts: list[bool | None]) -> str:
    return f"accepted {verdicts.count(True)}, undecided {verdicts.count(None)}"


def compare(title: str, pairs: list[Pair], python: str | None, said: Callable[[list[bool | None]], str]) -> None:
    """Prints what ours makes of some pairs and, where there is a `python` for it, the rival. said: of verdicts."""
    print(f"{len(pairs)} {title}")
    verdicts, seconds = ours(pairs)
    print(f"{'ours':20} {seconds:7.1f} s  {said(verdicts)}")
    if python:
        verdicts, seconds, name = rival(python, pairs)
        print(f"{name:20} {seconds:7.1f} s  {said(verdicts)}")


def output_pairs(paths: list[Path], limit: int) -> list[Pair]:
    rows = [row for path in paths for row in read_rows(path, "default")]
    return [(row.golds[0], row.prediction) for row in rows[:limit]]


_TOKEN = re.compile(r"\\[a-zA-Z]+|\d+|[a-zA-Z]|\S")
_OTHER = {
    "+": "-", "<": ">", "\\le": "\\ge", "\\sin": "\\cos", "(": "[", ")": "]", "\\cup": "\\cap", "\\pi": "e", "^": "_",
}  # fmt: skip
_OTHER |= {other: token for token, other in _OTHER.items() if token not in ("^", "\\pi")}


def changed_golds(folder: Path, limit: int) -> list[Pair]:
    """Golds of five data sets, each with one of its tokens replaced by another of its kind."""
    random = Random(2026)
    golds = [item.answers[0] for name in ("math", "gsm8k", "gsm-hard", "svamp", "asdiv") for item in load(name, folder)]
    golds = sorted({gold for gold in golds if gold})
    pairs: list[Pair] = []
    while len(pairs) < limit:
        gold = random.choice(golds)
        token = random.choice(list(_TOKEN.finditer(gold)))
        other = _OTHER.get(token.group(), "")
        if token.group().isdigit():
            other = str(int(token.group()) + random.choice((1, 2, 10)))
        elif re.fullmatch("[a-zA-Z]", token.group()):
            other = random.choice("abcnxyz".replace(token.group(), ""))
        if other:
            pairs.append((gold, gold[: token.start()] + other + gold[token.end() :]))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--outputs", type=Path, nargs="*", default=[])
    parser.add_argument("--golds", type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--rival", metavar="PYTHON")
    options = parser.parse_args()
    if options.golds:
        compare("golds with one token changed", changed_golds(options.golds, options.limit), options.rival, counted)
    if options.pairs:
        rows = [row for _, row in read_objects(options.pairs) if isinstance(row.get("equal"), bool)]
        labels = [row["equal"] for row in rows]
        pairs = [(row["gold"], row["prediction"]) for row in rows]
        compare("labelled pairs", pairs, options.rival, partial(judge, labels))
    if options.outputs:
        compare("pairs of published outputs", output_pairs(options.outputs, options.limit), options.rival, counted)


if __name__ == "__main__":
    main()

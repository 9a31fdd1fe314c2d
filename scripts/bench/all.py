"""Runs the benchmarks of claims, a process each: `arbor bench`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcts.errors import UserError
from scripts.bench.common import write

FOLDER = Path(__file__).parent
NO_CLAIMS = {
    "__init__",
    "__main__",
    "all",
    "common",
    "scripted",
    "simulated",
    "grader",
    "cluster",
    "serving",
    "published",
    "real_model",
}  # helpers; the grader's needs files of pairs, real_model a model, the others packages that are extras
TOTAL_SECONDS = 900.0


def scripts() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NO_CLAIMS)


def run(name: str, seconds: float) -> list[dict[str, Any]] | str:
    """The claims of one script, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "claims.json"
        try:
            command = [sys.executable, "-m", f"scripts.bench.{name}", "--json", str(path)]
            status = subprocess.run(command, cwd=FOLDER.parents[1], timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        if not path.exists():
            return f"no result (exit status {status})"
        claims = json.loads(path.read_text(encoding="utf-8"))
    return claims if isinstance(claims, list) else []  # a report of another kind is for its reader


def summary(claims: list[dict[str, Any]]) -> str:
    states = [claim["holds"] for claim in claims]
    failed = [claim["claim"] for claim in claims if claim["holds"] is False]
    counts = f"{states.count(True)} of {len(states) - states.count(None)} claims hold"
    counts += f", {states.count(None)} rows claim nothing or lack their rival"
    return "\n".join([counts, *(f"does not hold: {claim}" for claim in failed)])


def measure_all(names: Sequence[str], output: Path) -> int:
    """Runs the named benchmarks, all by default, and writes their claims: a list of {claim, ours, rival, ratio, bar,
    holds}. One that fails or takes too long is reported and the rest runs on. Returns the exit code: 0 where every
    claim that was measured holds. A name's words are joined by "-" or "_". Raises UserError for an unknown name."""
    names = [name.replace("-", "_") for name in names]
    for name in names:
        if name not in scripts():
            raise UserError(f"{name}: no such benchmark; there are {', '.join(scripts())}")
    started = time.monotonic()
    claims: list[dict[str, Any]] = []
    problems = []
    for name in names or scripts():
        print(f"\n=== {name}", flush=True)
        found = run(name, max(1.0, TOTAL_SECONDS - (time.monotonic() - started)))
        if isinstance(found, str):
            problems.append(f"{name}: {found}")
        else:
            claims += found
            write(output, claims)
    print("\n" + "\n".join([summary(claims), *problems, f"{output}, {time.monotonic() - started:.0f} s"]))
    return 0 if all(claim["holds"] is not False for claim in claims) and not problems else 1

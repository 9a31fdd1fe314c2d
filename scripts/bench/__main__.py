"""Runs every benchmark of a claim and writes bench.json: a list of {claim, ours, rival, ratio, bar, holds}.

python -m scripts.bench [--output bench.json] [NAME...]

NAME: a file of scripts/bench without its ending; all of them by default. One that fails or takes too long is reported
and the rest runs on; the exit status says whether every claim that was measured holds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NO_CLAIMS = {
    "__init__",
    "__main__",
    "common",
    "scripted",
    "simulated",
    "grader",
}  # helpers; the grader's needs files of pairs
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks (default: all)")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), metavar="FILE")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(scripts()):
        parser.error(f"{min(unknown)}: no such benchmark; there are {', '.join(scripts())}")
    started, claims, problems = time.monotonic(), [], []
    for name in arguments.names or scripts():
        print(f"\n=== {name}", flush=True)
        found = run(name, max(1.0, TOTAL_SECONDS - (time.monotonic() - started)))
        if isinstance(found, str):
            problems.append(f"{name}: {found}")
        else:
            claims += found
            arguments.output.write_text(json.dumps(claims, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n" + "\n".join([summary(claims), *problems, f"{arguments.output}, {time.monotonic() - started:.0f} s"]))
    return 0 if all(claim["holds"] is not False for claim in claims) and not problems else 1


if __name__ == "__main__":
    sys.exit(main())

"""The recording of `arbor solve --live` in docs/figures/live.svg, from a real run in a terminal (termtosvg).

python scripts/recording.py [--limit 100] [--output docs/figures/live.svg]
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "arbor solve --live --config configs/tiny/sbs_3_5.yaml --questions models/tiny/data/heldout.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=100, help="held-out problems (default 100)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/figures/live.svg")
    arguments = parser.parse_args()
    if shutil.which("termtosvg") is None:
        parser.error("termtosvg is not installed: pip install termtosvg")
    with tempfile.TemporaryDirectory() as folder:
        shown = f"{COMMAND} --limit {arguments.limit}"
        words = [sys.executable, "-m", *shlex.split(shown), "--output", f"{folder}/trees.jsonl"]
        run = f"echo {shlex.quote('$ ' + shown)}; sleep 1; {shlex.join(words)} | sed s,{folder}/,,; sleep 2"
        record = ["termtosvg", str(arguments.output), "-g", "112x12", "-m", "500", "-D", "3000", "-t", "window_frame"]
        environment = os.environ | {"TERM": "xterm-256color"}
        subprocess.run([*record, "-c", f"sh -c {shlex.quote(run)}"], cwd=ROOT, check=True, env=environment)
    print(arguments.output, arguments.output.stat().st_size)


if __name__ == "__main__":
    main()

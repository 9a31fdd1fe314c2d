"""Greedy, linear solutions of many questions at once: solver_demo.py in react mode, whatever the configuration says.

python react_batch_demo.py --custom_cfg configs/tiny/greedy.yaml --qaf models/tiny/data/heldout.jsonl
"""

from __future__ import annotations

import solver_demo
from scripts.assembly import run_command

if __name__ == "__main__":
    run_command(lambda: solver_demo.main(mode="react"))

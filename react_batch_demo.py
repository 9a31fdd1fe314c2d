"""`arbor solve` with greedy, linear solutions, whatever the configuration says; --set temperature=T samples instead."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[0]))

from arbor.commands import main

if __name__ == "__main__":
    main("solve", before=["--set", "temperature=0"], after=["--set", "mode=react"])

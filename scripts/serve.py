"""`arbor serve` under its documented name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arbor.commands import main

if __name__ == "__main__":
    main("serve")

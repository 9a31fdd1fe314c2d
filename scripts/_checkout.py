"""`arbor` for the scripts of this folder, which run by their paths in a checkout where nothing is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arbor.commands import main

__all__ = ["main"]

"""The documented names of the commands; as modules (`python -m scripts.demo`) they find what they share here, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

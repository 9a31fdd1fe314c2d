"""The documented names of the commands; as modules (`python -m scripts.demo`) they find here what they share."""

import sys

from scripts import _checkout

sys.modules["_checkout"] = _checkout

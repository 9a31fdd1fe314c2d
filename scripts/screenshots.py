"""The pictures of the page in docs/figures, from real searches of the embedded model in a real browser.

python scripts/screenshots.py [--limit 24] [--output docs/figures]

Needs Chromium (CHROMIUM names it), playwright (`make test-view` installs it) and pillow, which comes with matplotlib.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arbor.view.page import write_page

ROOT = Path(__file__).resolve().parents[1]
BROWSER = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
QUESTIONS = ROOT / "models/tiny/data/heldout.jsonl"


def search(name: str, limit: int, folder: Path) -> Path:
    """The trees of a configuration of the embedded model."""
    output = folder / f"{name}.jsonl"
    config = ROOT / "configs/tiny" / f"{name}.yaml"
    command = ["solve", "--config", config, "--questions", QUESTIONS, "--limit", limit, "--output", output]
    subprocess.run([sys.executable, "-m", "arbor", *map(str, command)], cwd=ROOT, check=True)
    return output


def picture(browser: Any, page: Path, keys: str, scheme: str, output: Path) -> None:
    """One picture of 1280 x 720 after some keys, in 128 colours to be small."""
    from PIL import Image

    shown = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme=scheme)
    shown.goto(page.as_uri())
    shown.wait_for_selector(".node")
    for key in keys.split():
        shown.keyboard.press(key)
        shown.wait_for_timeout(300)
    shown.screenshot(path=output)
    shown.close()
    with Image.open(output) as drawn:
        small = drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(output, optimize=True)
    print(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=24, help="held-out problems (default 24)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/figures")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        mcts, beam = (search(one, arguments.limit, folder) for one in ("mcts", "sbs_1_5"))
        write_page([mcts], folder / "one.html")
        write_page([beam, mcts], folder / "two.html")
        browser = driver.chromium.launch(executable_path=chromium, args=BROWSER)
        picture(browser, folder / "one.html", "j j 2", "light", arguments.output / "viewer.png")
        picture(browser, folder / "two.html", "j j", "dark", arguments.output / "viewer_two.png")
        browser.close()


if __name__ == "__main__":
    main()

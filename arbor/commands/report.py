"""Write the report of a run: report.html, one file, and report.md, with the page of its trees beside them.

arbor report TREES.jsonl... [--output DIR]

Configuration, versions, accuracy with intervals, cost, accuracy by type and level, figures, failures by reason, and the
questions without a right answer, each with a link to its tree. Without matplotlib the figures are left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import click

from arbor.assembly import make_folder, shown
from arbor.commands import _options as options
from arbor.view.page import write_page
from eval.report.html import Picture, as_html, as_markdown, report_blocks
from mcts.jsonl import write_text_whole, write_whole


def write_report(files: Sequence[Path], folder: Path, *, pages: bool = True) -> Path:
    """Writes report.html, report.md and their pages into a folder and returns the first. Raises UserError."""
    make_folder(folder)
    names = {path: f"{at}-{path.stem}.html" if len(files) > 1 else f"{path.stem}.html" for at, path in enumerate(files)}

    def link(path: Path, place: int) -> str:
        return f"{quote(names[path])}#q={place}" if pages else ""

    figures = importlib.util.find_spec("matplotlib") is not None
    blocks = report_blocks(files, link, figures=figures)
    if pages:
        for path in files:
            write_page([path], folder / names[path])
    title = f"Report of {', '.join(path.name for path in files)}"
    pictures = [block.png for block in blocks if isinstance(block, Picture)]
    if pictures:
        make_folder(folder / "report_figures")
    for at, png in enumerate(pictures, start=1):
        with write_whole(folder / "report_figures" / f"{at}.png") as file:
            file.write(png)
    write_text_whole(folder / "report.md", as_markdown(title, blocks, "report_figures"))
    write_text_whole(folder / "report.html", as_html(title, blocks))
    return folder / "report.html"


@options.command(__doc__)
@options.files("TREES.jsonl...", "expected tree files")
@options.output("folder  [default: TREES.report beside the first file]", required=False)
@click.option("--pages/--no-pages", default=True, help="write the pages of the trees as well")
def command(files: tuple[Path, ...], output: Path | None, pages: bool) -> None:
    print(shown(write_report(files, output or files[0].with_suffix(".report"), pages=pages)))

"""Show saved trees in a browser: one HTML file that opens anywhere, or a page that follows a file being written.

arbor view TREES.jsonl [OTHER.jsonl] [--output view.html]
arbor view TREES.jsonl --serve

The file holds the page and the trees, and asks for nothing outside itself. Two files stand side by side, question by
question. --serve shows the page on this machine alone and follows what a running search appends.
"""

from __future__ import annotations

from pathlib import Path

import click

from arbor.assembly import check_output, shown
from arbor.commands import _options as options
from mcts.errors import UserError


@options.command(__doc__)
@options.files("TREES.jsonl [OTHER.jsonl]")
@options.output("the page  [default: TREES.html beside the trees]", required=False)
@click.option("--serve", is_flag=True, help="show it at http://127.0.0.1 and follow the files, until Ctrl-C")
@click.option("--port", type=options.Whole(0, 65535), default=0, help="of --serve; 0: a free one")
@click.option("--grade/--no-grade", "graded", default=True, help="grade answers that the file gives no verdict on")
def command(files: tuple[Path, ...], output: Path | None, serve: bool, port: int, graded: bool) -> None:
    if not 1 <= len(files) <= 2:
        raise UserError(f"expected one tree file, or two to compare, found {len(files)}")
    if serve:
        from arbor.view.server import serve_pages

        if output is not None:
            raise UserError("--output names the file of a page; with --serve there is none")
        serve_pages(files, port, graded=graded)
        return
    from arbor.view.page import write_page

    output = output or files[0].with_suffix(".html")
    check_output(output, *files)
    write_page(files, output, graded=graded)
    print(shown(output))

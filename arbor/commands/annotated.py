"""Turn worked solutions with calculator annotations (`48/2 = <<48/2=24>>24`, as GSM8K has them) into steps with code.

arbor annotated --config configs/smollm2/greedy.yaml --rows train.jsonl --skip 200 --output steps.jsonl
    [--templates configs/smollm2/short_questions.yaml --count 2520]

A row has `question` and `answer` (the solution, its answer behind `####`). Every program is run; rows in which one does
not print what its annotation says, or the last one not the answer, are left out and counted. Templates are questions
with slots for numbers; `--count` rows made of them follow. `arbor imitation` makes examples of the result, which is a
question file as well.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from arbor.assembly import check_output, load_markup, make_folder
from arbor.commands import _options as options
from eval.data.rows import read_rows
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.jsonl import encode_line, write_whole
from models.engines.config import RunConfig
from models.training.annotated import Converter
from models.training.templates import templated_rows


@options.command(__doc__)
@options.config()
@click.option("--rows", type=options.FILE, metavar="FILE", help="worked solutions")
@click.option("--skip", type=options.Whole(0), default=0, help="leave out the first N rows: they can be held back")
@click.option("--templates", type=options.FILE, metavar="FILE", help="templates of questions")
@click.option("--count", type=options.Whole(1), default=1000, help="questions made of templates")
@options.output("file of questions with steps (JSON lines, never overwritten)")
def command(config: RunConfig, rows: Path | None, skip: int, templates: Path | None, count: int, output: Path) -> None:
    if rows is None and templates is None:
        raise UserError("expected --rows FILE, --templates FILE or both")
    make_folder(output.parent)
    check_output(output, new=True)
    found: list[Iterable[tuple[str, Mapping[str, Any]]]] = []
    if rows:
        found.append(islice(read_rows(rows), skip, None))
    if templates:
        found.append(templated_rows(templates, count, config.seed))
    counts = asyncio.run(_convert(config, chain(*found), output))
    print(json.dumps(counts, indent=1), file=sys.stderr)
    print(output)


async def _convert(config: RunConfig, rows: Iterable[tuple[str, Mapping[str, Any]]], output: Path) -> dict[str, int]:
    limits, profile = config.limits, config.code_profile
    async with ForkInterpreter(limits, profile=profile, sandbox=config.sandbox) as interpreter:
        converter = Converter(load_markup(config), interpreter)
        with write_whole(output) as lines:
            async for row in converter.convert(rows):
                lines.write(encode_line(row))
    return dict(converter.counts)

"""How a step is written down, one file a family of models: AlphaMath's (`react_sft`, `react`), ToRA's (`tora`, `pal`,
`cot`), and those with a chat template (`chat`).

A markup turns a question into a prompt, reads what the model wrote as a step, and writes the observation of
its code back. It knows neither tokens nor the search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcts.markup.alphamath import ReactMarkup, SftMarkup
from mcts.markup.registry import MARKUPS, Frame, MarkupEntry, register_markup
from mcts.markup.step import PROMPTS, PYTHON_INTERPRETER, Extract, Markup, Step, Turns, code_body, printed_answer

__all__ = [
    "MARKUPS", "PROMPTS", "PYTHON_INTERPRETER", "Extract", "Frame", "Markup", "MarkupEntry", "ReactMarkup", "SftMarkup",
    "Step", "Turns", "code_body", "make_markup", "printed_answer", "register_markup",
]  # fmt: skip


def make_markup(
    name: str,
    step_delim: str,
    prompt_path: str | None = None,
    few_shot_path: str | None = None,
    num_few_shot: int = 2,
    *,
    train_prompt: bool = False,
    extract: Extract | None = None,
    published: bool = False,
    keys: Mapping[str, Any] | None = None,
) -> Markup:
    """The markup that is registered as `name`.

    `prompt_path`: a text file with the instructions; `few_shot_path`: a JSON list of objects with `question` and
    `solution`; None takes what is shipped. `train_prompt`: the prompt that the family's models were trained on, in
    place of both. `extract`: the answer in a text, which markups without a field for it need. `published`: read steps
    by the family's published rules. keys: of a chat (`Frame.keys`). Raises UserError for an unknown name, OSError and
    ValueError for files that cannot be read.
    """
    entry = MARKUPS[name]
    if entry.needs_extractor and extract is None:
        raise ValueError(f"the markup {name} needs a function that extracts an answer from a text")
    instructions, examples = "", []
    if (entry.instructions is not None or entry.takes_prompt) and not train_prompt:
        written = prompt_path or entry.instructions
        instructions = Path(written).read_text(encoding="utf-8").strip() if written else ""
        shown = Path(few_shot_path) if few_shot_path else entry.examples_file()
        examples = _examples(shown, num_few_shot) if shown is not None else []
    return entry.make(Frame(step_delim, instructions, examples, train_prompt, extract, published, keys or {}))


def _examples(path: Path, count: int) -> list[tuple[str, str]]:
    """(question, solution) of the first `count` examples of a file."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"question", "solution"} <= row.keys() for row in rows
    ):
        raise ValueError(f'{path}: expected a list of {{"question": …, "solution": …}}')
    return [(row["question"], row["solution"].strip()) for row in rows[:count]]

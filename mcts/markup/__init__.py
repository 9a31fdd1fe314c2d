"""How a step is written down, one file a family of models: AlphaMath's (`react_sft`, `react`), ToRA's (`tora`, `pal`,
`cot`).

A markup turns a question into a prompt, reads what the model wrote as a step, and writes the observation of
its code back. It knows neither tokens nor the search.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mcts.markup.alphamath import ReactMarkup, SftMarkup
from mcts.markup.step import PROMPTS, PYTHON_INTERPRETER, Markup, Step, code_body
from mcts.markup.tora import Chat, CotMarkup, Examples, PalMarkup, ToraMarkup

__all__ = ["PROMPTS", "PYTHON_INTERPRETER", "Markup", "ReactMarkup", "SftMarkup", "Step", "code_body", "make_markup"]

AGENTS: dict[str, Callable[[Chat, Callable[[str], str], str], Markup]] = {
    "tora": ToraMarkup,
    "pal": PalMarkup,
    "cot": CotMarkup,
}


def make_markup(
    name: str,
    step_delim: str,
    prompt_path: str | None = None,
    few_shot_path: str | None = None,
    num_few_shot: int = 2,
    *,
    train_prompt: bool = False,
    extract: Callable[[str], str] | None = None,
) -> Markup:
    """The markup `name`: "react", "react_sft", "tora", "pal" or "cot".

    `prompt_path`: a text file with the instructions; `few_shot_path`: a JSON list of objects with `question` and
    `solution`; None takes what is shipped (the competition problems for ToRA's agents). `train_prompt`: the prompt that
    ToRA's models were trained on, in place of both. `extract`: the answer in a text, which ToRA's agents need.
    Raises OSError and ValueError for files that cannot be read.
    """
    if name == "react_sft":
        return SftMarkup(step_delim)
    instructions = Path(prompt_path or PROMPTS / f"{name}.txt").read_text(encoding="utf-8").strip()
    if name == "react":
        examples = _examples(Path(few_shot_path or PROMPTS / "react_examples.json"), num_few_shot)
        return ReactMarkup(instructions, [f"Question: {q}\n\n{solution}" for q, solution in examples], step_delim)
    if extract is None:
        raise ValueError(f"the markup {name} needs a function that extracts an answer from a text")
    if train_prompt:
        return AGENTS[name](Chat(), extract, step_delim)
    examples = _examples(Path(few_shot_path or PROMPTS / f"{name}_math.json"), num_few_shot)
    return AGENTS[name](Examples(instructions, examples), extract, step_delim)


def _examples(path: Path, count: int) -> list[tuple[str, str]]:
    """(question, solution) of the first `count` examples of a file."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"question", "solution"} <= row.keys() for row in rows
    ):
        raise ValueError(f'{path}: expected a list of {{"question": …, "solution": …}}')
    return [(row["question"], row["solution"].strip()) for row in rows[:count]]

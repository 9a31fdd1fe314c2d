"""Word problems made from templates, as rows of the form that `models.training.annotated` reads: a question, and its
solution with calculator annotations.

A template is "question | solution". Names and things are drawn from lists; {a}, {b} are any numbers, {big} is greater
than {small}, {p} is {q} times {r}; <<...>> is an expression, and {1} stands for what the first one gives.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcts.errors import UserError

_EXPRESSION = re.compile(r"<<([^<>]*)>>")
_SUM = re.compile(r"(\d+)([-+*/])(\d+)")
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
SPELLED = 0.15
"""Share of the questions in which small numbers are words, and of those in which dollars are a sign."""
TRIES = 1000
"""Draws of one template until its numbers stay positive and whole."""


class Templates(BaseModel):
    """A file of templates. Raises ValidationError for keys or forms that are not these."""

    model_config = ConfigDict(extra="forbid")
    names: list[str] = Field(min_length=2)
    things: list[str] = Field(min_length=1)
    questions: list[str] = Field(min_length=1)


def read_templates(path: Path) -> Templates:
    """The templates of a YAML file. Raises UserError naming the file."""
    try:
        return Templates.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{path}: expected the keys names, things and questions, lists of texts ({error})") from None


def templated_rows(path: Path, count: int, seed: int | None) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, row with `question` and `answer`), each template equally often, numbers by the seed. Raises UserError for
    a template without "|", with an unknown slot, or whose numbers never come out positive and whole."""
    templates, rng = read_templates(path), random.Random(seed)
    for at in range(count):
        where = f"{path}, template {at % len(templates.questions) + 1}"
        text = templates.questions[at % len(templates.questions)]
        for _ in range(TRIES):
            try:
                row = _row(text, templates, rng)
            except (KeyError, IndexError, AttributeError, ValueError) as error:
                raise UserError(f"{where}: expected question | solution with known slots ({error})") from None
            if row is not None:
                yield where, row
                break
        else:
            raise UserError(f"{where}: no numbers were found for which every result is positive and whole")


def _row(text: str, templates: Templates, rng: random.Random) -> dict[str, str] | None:
    """A question of this template; None where a result is not a positive whole number."""
    question, solution = text.split(" | ")
    top = rng.choice((12, 30, 100, 600))
    small, big = sorted(rng.sample(range(2, top + 2), 2))
    q, r = rng.randint(2, 12), rng.randint(2, min(top, 40))
    numbers = {
        "a": rng.randint(2, top),
        "b": rng.randint(2, top),
        "big": big,
        "small": small,
        "q": q,
        "r": r,
        "p": q * r,
    }
    (n, m), things = rng.sample(templates.names, 2), rng.choice(templates.things)
    slots: dict[str, object] = {"n": n, "m": m, "o": things, **numbers}
    results: list[str] = []
    lines = []
    for line in solution.split("\n"):
        before, expression, after = _EXPRESSION.split(line)
        spelled = expression.format("", *results, **slots)
        if (parts := _SUM.fullmatch(spelled)) is None:
            raise ValueError(f"{spelled!r} is not two numbers and a sign")
        left, sign, right = parts.groups()
        value = _OPERATIONS[sign](Fraction(left), Fraction(right))
        if value <= 0 or value.denominator != 1:
            return None
        results.append(str(value))
        lines.append(f"{before.format(**slots)}{spelled} = <<{spelled}={value}>>{value}{after.format(**slots)}")
    said = dict(slots)
    if rng.random() < SPELLED:
        said |= {key: _WORDS[value] for key, value in numbers.items() if value < len(_WORDS)}
    asked = question.format(**said)
    if rng.random() < SPELLED:
        asked = re.sub(r"(\d+) dollars", r"$\1", asked)
    return {"question": asked[0].upper() + asked[1:], "answer": "\n".join(lines) + f"\n#### {results[-1]}"}

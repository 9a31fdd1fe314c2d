"""Worked solutions with calculator annotations (`48/2 = <<48/2=24>>24 clips`, the answer behind `####`) as steps with
code: the sentence without the result, the expression as a program, what the program printed, and at the end the answer.

Every program is run. A row is left out where one prints another number than its annotation says, or the last one
another number than the answer; counts say how many and why.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from mcts.errors import UserError
from mcts.interpreter import Interpreter
from mcts.markup import Markup
from mcts.markup.step import Step

_ANNOTATION = re.compile(r"<<([^<>]*)=([^<>=]*)>>\s*[$€£]?(?:[\d.,]*\d%?)?")
_GIVES = re.compile(r"\s*=?\s*[$€£]?\s*$")  # what stands before the result
_SENTENCE = re.compile(r"[.;!?]\s+|,?\s+(?:and|so|or|which|then)\s+|,\s+")
_BEGINS_INSIDE = re.compile(r"\s*[-+*/x×÷]\s*[\d$(]")
_SPELLED = {"x": "*", "X": "*", "×": "*", "÷": "/", "^": "**", "%": "/100", ",": "", "$": "", "€": "", "£": "", " ": ""}
_CODE = re.compile(r"[\d.+\-*/()]+")
BATCH = 64  # rows whose programs run at the same time


@dataclass(frozen=True)
class Draft:
    """A step before its program has run. claimed: what the annotation says comes out."""

    thought: str
    code: str
    claimed: str


def drafts(solution: str) -> list[Draft]:
    """The steps of a solution, one an annotation. A line without any goes in front of the next step's sentence."""
    found: list[Draft] = []
    before = ""
    for line in solution.split("\n"):
        marks = list(_ANNOTATION.finditer(line))
        if not marks:
            before = f"{before} {line}".strip()
        for at, mark in enumerate(marks):
            end = _cut(line, mark.end(), marks[at + 1].start()) if at + 1 < len(marks) else len(line)
            start = _cut(line, marks[at - 1].end(), mark.start()) if at else 0
            lead, tail = line[start : mark.start()], line[mark.end() : end]
            if at and _BEGINS_INSIDE.match(lead):
                lead = f"{marks[at - 1][2]}{lead}"
            said = lead[: _GIVES.search(lead).start()]  # type: ignore[union-attr]  # it matches the empty end
            if not lead.rstrip("$€£ ").endswith("="):
                said = f"{said} {mark[1]}"
            thought = re.sub(r"\s+", " ", f"{before} {said}{tail}").strip()
            code = "".join(_SPELLED.get(letter, letter) for letter in mark[1])
            found.append(Draft(thought, code, mark[2]))
            before = ""
    return found


def _cut(line: str, start: int, end: int) -> int:
    """Where between two annotations one step's sentence ends and the next one's begins: at the last mark that parts
    clauses, else where the first result stands."""
    found = list(_SENTENCE.finditer(line, start, end))
    return found[-1].end() if found else start


def number(text: str) -> Fraction | None:
    """The number in a text like "$1,200" or "12.5%"; None where it is none."""
    try:
        return Fraction(re.sub(r"[$€£,%\s]", "", text))
    except (ValueError, ZeroDivisionError):
        return None


def agrees(printed: str, claimed: str) -> bool:
    """Whether a program printed the claimed number, up to the last decimal that is claimed."""
    own, other = number(printed), number(claimed)
    decimals = len(claimed.strip(" $€£%").partition(".")[2])
    slack = Fraction(1, 10 ** (decimals or 6))
    return own is not None and other is not None and abs(own - other) < slack


@dataclass
class Converter:
    """Rows with `question` and an annotated `answer` in, rows with `question`, `steps` and `answer` out.

    markup: has to run fenced programs and to read "The answer is 72." as the answer 72. counts: kept rows, and why the
    others are not.
    """

    markup: Markup
    interpreter: Interpreter
    counts: Counter[str] = field(default_factory=Counter)
    _printed: dict[str, str] = field(default_factory=dict)

    async def convert(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> AsyncIterator[dict[str, Any]]:
        """The rows that hold, in order. Raises UserError for a row of another form, or for a markup that does not read
        such steps."""
        batch: list[tuple[str, Mapping[str, Any]]] = []
        for item in rows:
            batch.append(item)
            if len(batch) == BATCH:
                for one in await self._together(batch):
                    yield one
                batch = []
        for one in await self._together(batch):
            yield one

    async def _together(self, batch: list[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        found = []
        for made in await asyncio.gather(*(self._row(where, row) for where, row in batch)):
            self.counts["kept" if isinstance(made, dict) else made] += 1
            if isinstance(made, dict):
                found.append(made)
        return found

    async def _row(self, where: str, row: Mapping[str, Any]) -> dict[str, Any] | str:
        """The converted row, or why there is none."""
        try:
            question = str(row["question"])
            solution, mark, answer = row["answer"].rpartition("####")
        except (KeyError, AttributeError):
            raise UserError(f"{where}: expected question and answer, a solution with its answer behind ####") from None
        parts, gold = drafts(solution.strip()), answer.strip().replace(",", "")
        if not mark or not parts:
            return "without annotation or answer"
        printed = [await self._run(part.code) for part in parts]
        if not all(agrees(own, part.claimed) for own, part in zip(printed, parts, strict=True)):
            return "a program prints another number than its annotation"
        if number(gold) is None or not agrees(printed[-1], gold):
            return "the last program does not print the answer"
        return {"question": question, "steps": self._steps(where, parts, printed, gold), "answer": gold}

    async def _run(self, code: str) -> str:
        if not _CODE.fullmatch(code):
            return ""
        if code not in self._printed:
            execution = await self.interpreter.run(None, code)
            self._printed[code] = "" if execution.failed else execution.observation
        return self._printed[code]

    def _steps(self, where: str, parts: list[Draft], printed: list[str], gold: str) -> list[str]:
        steps: list[str] = []
        for part, observation in zip(parts, printed, strict=True):
            text = f"{part.thought}\n```python\n{part.code}\n```"
            read = self.markup.read(text, self._joined(steps), "stop", self.markup.stop[0] if self.markup.stop else "")
            if read.code.strip() != part.code:
                raise UserError(
                    f"{where}: the markup runs no fenced programs; expected tora, or chat with step_cut code"
                )
            steps.append(self.markup.observed(Step(text, part.code), observation))
        last = f"The answer is {gold}."
        read = self.markup.read(last, self._joined(steps), "eos")
        if number(read.final_answer) != number(gold):
            raise UserError(f"{where}: the markup does not read {last!r} as an answer; expected tora or chat")
        return [*steps, last]

    def _joined(self, steps: list[str]) -> str:
        return "".join(f"{step}{self.markup.step_delim}" for step in steps)

"""What the page shows of a question: its line in the list, and everything once it is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from arbor.assembly import load_markup
from eval.grading.grader import grade
from eval.report.scores import Score, accuracy
from mcts.errors import UserError
from mcts.markup import Markup, SftMarkup
from mcts.model import Conversation
from mcts.question import Question
from mcts.search.methods import METHODS
from mcts.search.offline import offline_inference
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import NOT_EVALUATED, Node, walk
from models.engines.config import RunConfig

Json = dict[str, Any]
VERDICTS = {True: "right", False: "wrong", None: "undecided"}


@dataclass(frozen=True)
class Picked:
    """The node that the prediction stands for."""

    answer: str
    run: int
    tag: str


@dataclass(frozen=True)
class Item:
    """A question of a tree file. entry: what the list shows. detail: what the page shows once it is chosen."""

    entry: Json
    detail: Json


def read_items(path: Path, *, graded: bool = True) -> Iterator[Item]:
    """The questions of a tree file. graded: answers that the file gives no verdict on are graded, where the right
    one is known. Raises UserError with file and line."""
    for number, (where, record) in enumerate(read_tree_lines(path)):
        yield make_item(number, where, record, graded=graded)


def make_item(number: int, where: str, record: Json, *, graded: bool = True) -> Item:
    """number: the line's place in its file. Raises UserError."""
    roots = read_roots(where, record)
    picked = _picked(record, roots)
    verdicts = _verdicts(where, record, roots, graded=graded)
    verdict = _verdict(record, picked, verdicts)
    meta = record.get("meta") or {}
    config = meta.get("config")
    entry = {
        "question": str(record.get("question") or roots[0].extra_info.removeprefix("question: ")),
        "answer": " | ".join(Question(number, record, where).answers),
        "prediction": picked.answer if picked else "",
        "verdict": verdict,
        "reason": str(meta.get("no_answer") or "no answer in the tree") if picked is None else "",
        "method": _method(config, roots, record["react"]),
        "tokens": _number(meta.get("tokens_generated")),
        "seconds": _number(meta.get("wall_seconds")),
        "simulations": _number(meta.get("simulations")),
        "nodes": sum(1 for root in roots for _ in walk(root)) - len(roots),
        "error": _value_error(roots, picked, verdict),
        "type": str(record.get("type") or record.get("family") or ""),
        "level": str(record.get("level") or ""),
        "index": _number(meta.get("index")),
    }
    markup, said = _read_markup(config, roots[0])
    prompt = None if markup is None else markup.prompt(str(entry["question"]))
    if isinstance(prompt, Conversation):
        said = "the turns of a chat; the model's template lays them out, the token ids are exact"
    detail = {
        "record": record,
        "verdicts": verdicts,
        "picked": vars(picked) if picked else None,
        "prompt": None if prompt is None else str(prompt),
        "delimiter": "\n" if markup is None else markup.step_delim,
        "written": [_written(markup, root) for root in roots],
        "markup": said,
    }
    return Item(entry, detail)


def score(entries: Sequence[Json]) -> Score | None:
    """Accuracy over the questions with a known answer; None where there are none."""
    known = [one["verdict"] for one in entries if one["verdict"] != "ungraded" and one["answer"]]
    grades = [True if one == "right" else None if one == "undecided" else False for one in known]
    return accuracy(grades) if grades else None


def _picked(record: Json, roots: Sequence[Node]) -> Picked | None:
    """The recorded prediction, else the best solution of a beam, else the answer that the tree is decided for."""
    if "prediction" in record:
        one = record["prediction"]
        return Picked(one["final_answer"], one.get("run") or 0, one.get("tag") or "") if one else None
    solutions = record["react"].get("solutions")
    if isinstance(solutions, list):
        best = next((one for one in solutions if isinstance(one, Mapping)), None)
        return Picked(str(best.get("final_answer")), 0, str(best.get("tag"))) if best else None
    widest = max(1, max(len(node.children) for node in walk(roots[0])))
    answers = offline_inference(roots[0], samples=widest)
    return Picked(answers[0].final_answer, 0, answers[0].tag) if answers else None


def _verdicts(where: str, record: Json, roots: Sequence[Node], *, graded: bool) -> dict[str, bool | None]:
    """Answer → right, wrong or undecided (None): as the search recorded it, else as the grader finds."""
    answered = [node for root in roots for node in walk(root) if node.answered]
    found: dict[str, bool | None] = {
        node.final_answer: node.reward > 0 for node in answered if node.reward is not None and not node.failed
    }
    prediction = record.get("prediction") or {}
    if "correct" in prediction:
        found[prediction["final_answer"]] = prediction["correct"]
    accepted = Question(0, record, where).answers
    if graded and accepted:
        for node in answered:
            if node.final_answer not in found:
                found[node.final_answer] = grade(list(accepted), node.final_answer).equal
    return found


def _verdict(record: Json, picked: Picked | None, verdicts: Mapping[str, bool | None]) -> str:
    if picked is None:
        return "unanswered"
    return VERDICTS[verdicts[picked.answer]] if picked.answer in verdicts else "ungraded"


def _method(config: Any, roots: Sequence[Node], tree: Json) -> str:
    """The method's title; of a file that does not say it, what its trees show."""
    if isinstance(config, Mapping):
        mode = str(config.get("mode", "mcts"))
        title = METHODS[mode].title if mode in METHODS else mode
        return title if len(roots) == 1 else f"{title}, {len(roots)} runs"
    if any(node.visit_count for node in walk(roots[0])):
        return METHODS["mcts"].title
    return METHODS["sbs"].title if "solutions" in tree else METHODS["react"].title


def _value_error(roots: Sequence[Node], picked: Picked | None, verdict: str) -> float | None:
    """|value of the predicted answer − outcome|, from 0 to 2, where both are known."""
    if picked is None or verdict not in ("right", "wrong") or picked.run >= len(roots):
        return None
    node = next((one for one in walk(roots[picked.run]) if one.tag == picked.tag), None)
    if node is None or node.value == NOT_EVALUATED:
        return None
    return abs(node.value - (1.0 if verdict == "right" else -1.0))


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) and math.isfinite(value) else None


# --- prompts


def _read_markup(config: Any, root: Node) -> tuple[Markup | None, str]:
    """The markup of a record's configuration, and what has to be said of it: why it is not known, or is assumed."""
    if config:
        try:
            return _markup(RunConfig.model_validate(config).model_dump_json()), ""
        except ValidationError as error:
            return None, f"its configuration is not of this version: {error.errors()[0]['msg']}"
        except UserError as error:
            return None, str(error)
    if any(child.text.startswith("<step>") for child in root.children):
        return SftMarkup(), "the file does not say its markup, AlphaMath's is assumed"
    return None, "the file does not say its markup"


@lru_cache(maxsize=16)
def _markup(config: str) -> Markup:
    """The markup of a configuration in JSON: one a file as a rule, whose examples are read once."""
    found: Markup = load_markup(RunConfig.model_validate_json(config))
    return found


def _written(markup: Markup | None, root: Node) -> dict[str, int]:
    """Tag of a code step → how much of its text the model wrote itself, in the UTF-16 units of JavaScript."""
    if markup is None:
        return {}
    steps = (node for node in walk(root) if node.action)
    return {node.tag: _units(node.text[: markup.written(node.text)]) for node in steps}


def _units(text: str) -> int:
    return len(text) + sum(char > "\uffff" for char in text)

"""From searched trees to training examples: complete paths, preference pairs of siblings, a data card.

Every example carries token ids, so nothing is tokenised twice. The choice of paths and their targets follow AlphaMath
(https://arxiv.org/abs/2405.03553, section 3.3), pairs follow SVPO (https://arxiv.org/abs/2407.00782), outcome targets
follow OVM (https://arxiv.org/abs/2311.09724). The lines are described in docs/training.md.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import permutations, takewhile
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcts.errors import UserError
from mcts.jsonl import encode_line, read_objects, reading, write_text_whole, write_whole
from mcts.markup import Markup, SftMarkup
from mcts.markup.alphamath import react_to_sft
from mcts.model import Conversation
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import Node, walk
from models.engines.config import RunConfig

Choice = Literal["random", "q_value", "spread"]
Targets = Literal["q_value", "outcome", "best"]
Grades = Mapping[str, bool | None]
"""Tag of an answered leaf → right, wrong, or None when the grader could not tell."""


class ExampleRules(BaseModel):
    """Which paths and pairs are taken from a tree.

    correct, wrong: complete paths a question at most, distinct in their texts. choice: `random`; `q_value` takes the
    most valued last inner steps (the surest correct and the most deceptive wrong paths); `spread` takes paths that
    part early. targets: what a step is worth, its Q from the search, the outcome of its path (OVM), or
    the best outcome found after it, over all paths of the question (a question without a right path: its ends alone).
    failures: a path that ends in a failed step counts as wrong. pairs: preference pairs a tree at most, of siblings
    that were both visited and whose Q differ by `pair_margin` or more; `choice: q_value` takes the widest margins.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    correct: int = Field(4, ge=0)
    wrong: int = Field(4, ge=0)
    choice: Choice = "random"
    seed: int = 0
    targets: Targets = "q_value"
    failures: bool = True
    pairs: int = Field(0, ge=0)
    pair_margin: float = Field(0.5, gt=0)
    mask_observations: bool = True
    value_only: bool = False
    rewrite: bool = False


class Speller(Protocol):
    """What is needed of a tokenizer: ids of texts, and where in a text each id ends."""

    def encode_start(self, text: str) -> tuple[int, ...]: ...
    def encode_chat(self, chat: Conversation) -> tuple[int, ...]: ...
    def encode(self, text: str) -> tuple[int, ...]: ...
    def ends(self, ids: Sequence[int], text: str) -> tuple[int, ...]: ...


def encode_prompt(speller: Speller, prompt: str | Conversation) -> tuple[int, ...]:
    """The ids of what stands before the first step."""
    return speller.encode_start(prompt) if isinstance(prompt, str) else speller.encode_chat(prompt)


@dataclass
class Origin:
    """Whose trees are accepted. weights: hashes of the models that may have written them; None: any."""

    markup: Markup
    markup_name: str
    weights: frozenset[str] | None = None

    def check(self, where: str, meta: Any) -> None:
        """Raises UserError for a tree of another markup or another model."""
        if self.weights is None:
            return
        try:
            config, weights = RunConfig.model_validate(meta["config"]), meta["model"]["weights"]
        except (KeyError, TypeError, ValidationError):
            raise UserError(
                f"{where}: the tree does not say which model and markup wrote it; "
                "search again, or take it with --any-model"
            ) from None
        if (config.prompt_wrap, config.step_delim) != (self.markup_name, self.markup.step_delim):
            raise UserError(
                f"{where}: written with markup {config.prompt_wrap} and step_delim {config.step_delim!r}, expected "
                f"{self.markup_name} and {self.markup.step_delim!r}; name the configuration of its search"
            )
        if weights not in self.weights:
            raise UserError(
                f"{where}: written by model {meta['model'].get('name')} ({weights}), expected "
                f"{' or '.join(sorted(self.weights))}; search again with this model, or take it with --any-model"
            )


@dataclass(frozen=True)
class CompletePath:
    """A complete path: its leaf, the run it comes from, and whether its answer is right."""

    leaf: Node
    run: int
    correct: bool

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(node.text.strip() for node in self.leaf.path())

    @property
    def last_q(self) -> float:
        """Q of the last step before the answer."""
        parent = self.leaf.parent
        return parent.q_value if parent is not None else 0.0


def complete_paths(root: Node, run: int, grades: Grades, failures: bool) -> Iterator[CompletePath]:
    """The paths to every leaf whose outcome is known. An undecided answer has none."""
    for leaf in walk(root):
        if leaf.children or not leaf.terminal or leaf.parent is None:
            continue
        if leaf.failed:
            if failures:
                yield CompletePath(leaf, run, False)
        elif leaf.reward is not None:
            yield CompletePath(leaf, run, leaf.reward > 0)
        elif (verdict := grades.get(leaf.tag)) is not None:
            yield CompletePath(leaf, run, verdict)


def distinct(paths: Iterable[CompletePath]) -> list[CompletePath]:
    """The first path of each text."""
    return list({path.texts: path for path in reversed(list(paths))}.values())[::-1]


def choose(paths: Sequence[CompletePath], n: int, choice: Choice, rng: random.Random) -> list[CompletePath]:
    """`n` of the paths, or all."""
    shuffled = rng.sample(paths, len(paths))
    if choice == "q_value":
        shuffled.sort(key=lambda path: path.last_q, reverse=True)
    if choice == "spread":
        return _spread(shuffled, n)
    return shuffled[:n]


def _spread(paths: list[CompletePath], n: int) -> list[CompletePath]:
    """Takes again and again the path that shares the fewest first steps with those already taken."""
    taken: list[CompletePath] = []
    steps = [path.texts for path in paths]
    shared = [0] * len(paths)
    left = list(range(len(paths)))
    while left and len(taken) < n:
        best = min(left, key=lambda i: shared[i])
        left.remove(best)
        taken.append(paths[best])
        for i in left:
            shared[i] = max(shared[i], _common(steps[i], steps[best]))
    return taken


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """How many first elements two sequences share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def inner_worth(path: CompletePath, targets: Targets, solved: Set[tuple[str, ...]]) -> list[float | None]:
    """What each step before the last one is worth; None: not known."""
    texts, nodes = path.texts, path.leaf.path()[:-1]
    if targets == "q_value":
        return [node.q_value if node.visit_count else None for node in nodes]
    if targets == "outcome":
        return [1.0 if path.correct else -1.0] * len(nodes)
    known = [1.0 if texts[:depth] in solved else -1.0 for depth in range(1, len(texts))]
    return list(known) if solved else [None] * len(nodes)


def preference_pairs(root: Node, rules: ExampleRules, rng: random.Random) -> list[tuple[Node, Node]]:
    """(better, worse) siblings, both visited, Q apart by the margin or more."""
    found = [
        (better, worse)
        for node in walk(root)
        for better, worse in permutations([child for child in node.children if child.visit_count], 2)
        if better.q_value - worse.q_value >= rules.pair_margin and better.text != worse.text
    ]
    rng.shuffle(found)
    if rules.choice == "q_value":
        found.sort(key=lambda pair: pair[0].q_value - pair[1].q_value, reverse=True)
    return found[: rules.pairs]


@dataclass
class Writer:
    """Turns nodes into token ids and loss masks."""

    speller: Speller
    markup: Markup
    mask_observations: bool = True
    value_only: bool = False
    rewrite: bool = False

    def __post_init__(self) -> None:
        if self.rewrite:
            self.markup = SftMarkup()

    def root_ids(self, root: Node, question: str) -> tuple[int, ...]:
        kept = () if self.rewrite else root.token_ids
        return kept or encode_prompt(self.speller, self.markup.prompt(question))

    def step(self, node: Node) -> tuple[tuple[int, ...], list[int]]:
        """The ids that a step adds, and for each one whether the model wrote it."""
        whole = react_to_sft(node.text, node.action_input, node.final_answer) if self.rewrite else node.text
        text = whole + ("" if node.failed and not node.action else self.markup.step_delim)
        ids = (() if self.rewrite else node.token_ids) or self.speller.encode(text)
        if not self.mask_observations:
            return ids, [1] * len(ids)
        written = self.markup.written(whole) if node.action else len(whole)
        starts = (0, *self.speller.ends(ids, text)[:-1])
        return ids, [int(start < written) for start in starts]

    def segments(self, nodes: Iterable[Node]) -> tuple[list[int], list[int], list[int]]:
        """Token ids and mask of some steps on end, and the last position of each step."""
        ids: list[int] = []
        mask: list[int] = []
        ends: list[int] = []
        for node in nodes:
            own, written = self.step(node)
            ids += own
            mask += written
            ends.append(len(ids) - 1)
        return ids, mask, ends

    def path(
        self, prompt: tuple[int, ...], path: CompletePath, targets: Targets, solved: Set[tuple[str, ...]] = frozenset()
    ) -> dict[str, Any]:
        """The line of a path: ±1 at its end, what `targets` says at the steps before. solved: beginnings of the right
        paths of the question."""
        nodes = path.leaf.path()
        ids, mask, ends = self.segments(nodes)
        mask = [0] * len(ids) if self.value_only else mask
        outcome = 1.0 if path.correct else -1.0
        inner = inner_worth(path, targets, solved)
        worth = [(end, value) for end, value in zip(ends, inner, strict=False) if value is not None]
        worth.append((ends[-1], outcome))
        return {
            "kind": "path",
            "correct": path.correct,
            "token_ids": [*prompt, *ids],
            "loss_mask": [0] * len(prompt) + mask,
            "targets": [[len(prompt) + end, value] for end, value in worth if end >= 0],
        }

    def pair(self, prompt: tuple[int, ...], better: Node, worse: Node) -> dict[str, Any]:
        """The line of a preference pair: what stands before, and the two steps with their Q."""
        assert better.parent is not None
        before, _, _ = self.segments(better.parent.path())
        line: dict[str, Any] = {"kind": "pair", "prefix": [*prompt, *before]}
        for name, node in (("chosen", better), ("rejected", worse)):
            ids, mask = self.step(node)
            line[name] = {"token_ids": list(ids), "loss_mask": mask, "q_value": node.q_value}
        return line


@dataclass
class Card:
    """Counts of what was read and written; becomes the data card beside the examples. lengths: tokens of each example,
    of a pair those of its longer side."""

    counts: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    without_correct: list[str] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        kind = line["kind"] if line["kind"] == "pair" else "correct paths" if line["correct"] else "wrong paths"
        self.counts[kind.replace("pair", "pairs") if kind == "pair" else kind] += 1
        if line["kind"] == "path":
            self.counts["tokens"] += len(line["token_ids"])
            self.counts["tokens learned"] += sum(line["loss_mask"]) if line["correct"] else 0
            self.counts["value targets"] += len(line["targets"])
            self.lengths.append(len(line["token_ids"]))
        else:
            sides = (line[name]["token_ids"] for name in ("chosen", "rejected"))
            self.lengths.append(len(line["prefix"]) + max(map(len, sides)))

    def length_shares(self) -> dict[str, int]:
        """How many tokens half, 95 % and all of the examples have at most: what `max_tokens` of a training keeps."""
        ordered = sorted(self.lengths)
        at = {"50 %": 0.5, "95 %": 0.95, "100 %": 1.0}
        return {name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in at.items() if ordered}


@dataclass
class Extraction:
    """Trees in, examples out, with the counts. Raises UserError with file and line."""

    rules: ExampleRules
    writer: Writer
    origin: Origin
    card: Card = field(default_factory=Card)

    def examples(
        self, where: str, record: Mapping[str, Any], grades: Sequence[Grades] = ()
    ) -> Iterator[dict[str, Any]]:
        """The lines of one question. grades: of each of its trees, where the search gave no rewards."""
        self.origin.check(where, record.get("meta"))
        roots = read_roots(where, record)
        rng = random.Random(f"{self.rules.seed} {record.get('question')}")
        question = str(record.get("question") or roots[0].extra_info.removeprefix("question: "))
        prompt = self.writer.root_ids(roots[0], question)
        for line in self._lines(where, roots, prompt, grades, rng):
            self.card.add(line)
            yield {**line, "group": where}

    def _lines(
        self, where: str, roots: list[Node], prompt: tuple[int, ...], grades: Sequence[Grades], rng: random.Random
    ) -> Iterator[dict[str, Any]]:
        own = [grades[run] if run < len(grades) else {} for run in range(len(roots))]
        found = [p for run, root in enumerate(roots) for p in complete_paths(root, run, own[run], self.rules.failures)]
        kinds = {correct: distinct(path for path in found if path.correct is correct) for correct in (True, False)}
        solved = {path.texts[:depth] for path in kinds[True] for depth in range(1, len(path.texts))}
        self._count(where, roots, found, kinds)
        for correct, limit in ((True, self.rules.correct), (False, self.rules.wrong)):
            for path in choose(kinds[correct], limit, self.rules.choice, rng):
                yield self.writer.path(prompt, path, self.rules.targets, solved)
        for root in roots if self.rules.pairs else ():
            for better, worse in preference_pairs(root, self.rules, rng):
                yield self.writer.pair(prompt, better, worse)

    def _count(
        self, where: str, roots: list[Node], found: list[CompletePath], kinds: dict[bool, list[CompletePath]]
    ) -> None:
        counts = self.card.counts
        counts["questions"] += 1
        counts["questions with a correct path"] += bool(kinds[True])
        counts["complete paths"] += len(found)
        counts["distinct correct paths"] += len(kinds[True])
        counts["distinct wrong paths"] += len(kinds[False])
        answered = sum(node.answered and not node.children for root in roots for node in walk(root))
        counts["undecided answers"] += answered - sum(path.leaf.answered for path in found)
        if not kinds[True]:
            self.card.without_correct.append(where)


def read_grades(trees: Path) -> list[list[Grades]] | None:
    """The verdicts that scripts/grade_trees.py wrote beside a tree file: for each line one mapping a tree; None where
    there are none. Raises UserError for verdicts on another version of the trees."""
    path = grades_path(trees)
    if not path.exists():
        return None
    rows, version = [row for _, row in read_objects(path)], file_hash(trees)
    if not all(row.get("trees") == version and row.get("line") == line for line, row in enumerate(rows)):
        raise _stale(path, trees)
    return [row["grades"] for row in rows]


def _stale(path: Path, trees: Path) -> UserError:
    return UserError(
        f"{path}: not the verdicts on {trees.name} as it is now; python scripts/grade_trees.py {trees} writes them anew"
    )


def file_hash(path: Path) -> str:
    """16 hex digits of a file's content. Raises UserError."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def grades_path(trees: Path) -> Path:
    return trees.with_name(f"{trees.name}.grades")


def write_examples(trees: Sequence[Path], extraction: Extraction, output: Path) -> dict[str, Any]:
    """Writes the examples of tree files to `output` (under its name only when complete) and the data card beside it.

    Raises UserError: bad lines with file and line; a file in which no question has a correct path.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    with write_whole(output) as lines:
        for path in trees:
            extraction.card = Card()
            grades = read_grades(path)
            own = itertools.repeat(()) if grades is None else itertools.chain(grades, itertools.repeat(None))
            for (where, record), verdicts in zip(read_tree_lines(path), own, strict=False):
                if verdicts is None:
                    raise _stale(grades_path(path), path)
                for line in extraction.examples(where, record, verdicts):
                    lines.write(encode_line(line))
            files[str(path)] = _file_card(path, extraction.card)
        total = sum((Counter(card["counts"]) for card in files.values()), Counter[str]())
        card = {"schema": "arbor-examples/1", "rules": extraction.rules.model_dump(), "counts": total, "files": files}
        write_text_whole(output.with_suffix(".card.json"), json.dumps(card, indent=1) + "\n")
    return card


def _file_card(path: Path, card: Card) -> dict[str, Any]:
    if not card.counts["questions with a correct path"]:
        raise UserError(
            f"{path}: no correct path in any of its {card.counts['questions']} trees (the first: "
            f"{card.without_correct[0]}); search with more iterations or samples, or easier questions"
        )
    lengths = {"tokens of an example at most": card.length_shares()}
    return {"counts": card.counts, **lengths, "without a correct path": card.without_correct[:20]}

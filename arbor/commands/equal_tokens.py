"""Compare searches with sampled solutions at the same number of tokens: a table, JSON and a figure.

arbor equal-tokens --questions F --output DIR [--model DIR] [--samples 32] [--configs FILE...] [--set KEY=VALUE]
arbor equal-tokens --sampled RUNS.jsonl --searches TREES.jsonl... --output DIR

The first form searches the questions by each configuration (the one with several runs, `n_runs`, samples --samples
solutions, which the model's value head judges), and goes on where it was stopped. The second form reads such files;
best of k and the weighted vote need values (`need_value_func` or `arbor rerank`). For each k every k consecutive runs
are one try, so small k are means over several tries. Each search is compared with the smallest k whose runs cost at
least as many generated tokens as it does (McNemar's exact test over the questions that both files have), and with k = 5
and 15 where the search is step beam (1,5) and (3,5). DIR/equal_tokens.json holds the rows {method, family, n, accuracy,
low, high, tokens, computed_tokens, tests}. The answers must be known. The figure needs matplotlib
(requirements-dev.txt).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from arbor.assembly import grade, load_model, make_folder
from arbor.commands import _options as options
from arbor.commands.demo import search as run_search
from eval.data.questions import count_questions
from eval.report.columns import distinct_tokens
from eval.report.figures import FIGURES, check_matplotlib, draw
from eval.report.scores import mcnemar, wilson
from eval.report.table import markdown_table
from eval.report.tally import gold_answers
from mcts.errors import UserError
from mcts.jsonl import write_text_whole, write_whole
from mcts.search.offline import saved_rule
from mcts.search.rules import path_value
from mcts.search.voting import Candidate, decide
from mcts.trees.file import read_roots, read_tree_lines
from mcts.trees.node import NOT_EVALUATED, walk
from models.engines.config import RunConfig, load_config

Right = dict[int, list[bool]]  # question → of each try, whether its answer is right
WAYS = {"Maj": "majority", "best": "none", "weighted": "value_weighted"}
"""Name of a way to decide k runs → the vote. With "none" the highest value wins."""
CONFIGS = ("maj5", "greedy", "sbs_1_5", "sbs_3_5", "mcts")
SHOWN = (1, 2, 3, 5, 8, 12, 15, 20, 24, 32, 48, 64)  # k in the table and the figure; tests take any


@dataclass
class Row:
    """accuracy: per cent, a mean over n questions, with its 95 % interval. tokens, computed_tokens: a question, sampled
    and gone through the network. tests: against sampled solutions, McNemar's exact."""

    method: str
    family: str
    n: int
    accuracy: float
    low: float
    high: float
    tokens: float
    computed_tokens: float
    tests: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, method: str, family: str, right: Right, tokens: float, computed: float) -> Row:
        accuracy = sum(sum(tries) / len(tries) for tries in right.values()) / len(right)
        low, high = wilson(accuracy * len(right), len(right))
        return cls(method, family, len(right), 100 * accuracy, low, high, tokens, computed)


@dataclass
class Question:
    """What a file says of a question. runs: the answer of each sampled solution, equal answers under one text; trees:
    the token ids of each, by tag; tokens, computed: of all runs together; verdicts: text → whether it is right."""

    family: str
    tokens: float
    computed: float
    runs: list[Candidate | None]
    trees: list[dict[str, Any]]
    verdicts: dict[str, bool]


async def read_sampled(path: Path, rule: str | None) -> dict[int, Question]:
    """rule: of PATH_VALUES, None: that of the sampling. Raises UserError for a file without answers or with a single
    run a question."""
    found = {}
    for where, record in read_tree_lines(path):
        index, answers, runs, trees = index_of(where, record), gold_answers(where, record), [], []
        by = rule or saved_rule(record)
        for run, root in enumerate(read_roots(where, record)):
            leaf = next((node for node in walk(root) if node.answered and not node.children), None)
            runs.append(None if leaf is None else Candidate(leaf.final_answer, path_value(leaf, by), leaf.tag, run))
            trees.append({node.tag: {"token_ids": node.token_ids} for node in walk(root)})
        if len(runs) < 2:
            raise UserError(f"{path}: one run a question; expected several (n_runs)")
        runs = await unified(runs)
        texts = {one.final_answer for one in runs if one is not None}
        verdicts = {text: bool(await grade(answers, text)) for text in sorted(texts)}
        meta = record["meta"]
        computed = meta.get("tokens_computed", float("nan"))
        found[index] = Question(family_of(record), meta["tokens_generated"], computed, runs, trees, verdicts)
    return found


async def unified(runs: Sequence[Candidate | None]) -> list[Candidate | None]:
    """The runs with equal answers under the text of the first of them."""
    texts: dict[str, str] = {}
    for one in runs:
        if one is not None and one.final_answer not in texts:
            known = [text for text in dict.fromkeys(texts.values()) if not differ(text, one.final_answer)]
            same = [text for text in known if await grade([text], one.final_answer)]
            texts[one.final_answer] = same[0] if same else one.final_answer
    return [one and Candidate(texts[one.final_answer], one.value, one.tag, one.run) for one in runs]


def differ(first: str, second: str) -> bool:
    """Whether two answers are different whole numbers: what needs no grader."""
    whole = [text.strip().removeprefix("-").isdecimal() for text in (first, second)]
    return all(whole) and int(first) != int(second)


def family_of(record: dict[str, Any]) -> str:
    return str(record.get("family") or "")


def index_of(where: str, record: dict[str, Any]) -> int:
    try:
        return int(record["meta"]["index"])
    except (KeyError, TypeError):
        raise UserError(f"{where}: no meta.index; expected trees of this version's searches") from None


@dataclass
class Sampled:
    """The sampled solutions of some questions. runs: of each, at least; per_run: tokens generated; judged: how many of
    the answers have a value. Where some have, one without counts as the least."""

    questions: dict[int, Question]

    def __post_init__(self) -> None:
        every = self.questions.values()
        self.runs = min(len(one.runs) for one in every)
        self.per_run = sum(one.tokens / len(one.runs) for one in every) / len(every)
        answers = [run for one in every for run in one.runs if run is not None]
        self.answers, self.judged = len(answers), sum(run.value != NOT_EVALUATED for run in answers)

    def ways(self) -> dict[str, str]:
        return WAYS if self.judged else {"Maj": "majority"}

    async def tries(self, k: int, way: str) -> Right:
        """Every k consecutive runs, decided in a way."""
        return {
            index: [await self._right(one, start, k, way) for start in range(0, self.runs - k + 1, k)]
            for index, one in self.questions.items()
        }

    @staticmethod
    async def _right(one: Question, start: int, k: int, way: str) -> bool:
        found = [run for run in one.runs[start : start + k] if run is not None]
        found = sorted(found, key=lambda run: -run.value) if way == "best" else found
        decision = await decide(found, WAYS[way], None)
        return decision is not None and one.verdicts[decision.final_answer]

    def computed(self, k: int) -> float:
        """Tokens computed a question by the first k runs together."""
        counts = [distinct_tokens(one.trees[:k]) for one in self.questions.values()]
        return sum(counts) / len(counts)


@dataclass
class Searched:
    """The trees of a search. cost: question → tokens generated, tokens computed."""

    name: str
    right: Right
    cost: dict[int, tuple[float, float]]

    @classmethod
    def read(cls, path: Path) -> Searched:
        self = cls(path.stem, {}, {})
        for where, record in read_tree_lines(path):
            index, meta = index_of(where, record), record["meta"]
            self.right[index] = [(record.get("prediction") or {}).get("correct") is True]
            self.cost[index] = meta["tokens_generated"], meta.get("tokens_computed", float("nan"))
        return self

    def row(self, family: str, questions: Iterable[int]) -> Row:
        common = [index for index in questions if index in self.right]
        if not common:
            raise UserError(f"{self.name}: no question in common with the sampled file")
        tokens, computed = (sum(self.cost[i][at] for i in common) / len(common) for at in (0, 1))
        return Row.of(self.name, family, {i: self.right[i] for i in common}, tokens, computed)


async def rows_of(family: str, sampled: Sampled, searches: Sequence[Searched]) -> list[Row]:
    """Sampled solutions for each k, and the searches with their tests."""
    ways = sampled.ways()
    rows = []
    for way in ways:
        for k in (k for k in SHOWN if k <= sampled.runs):
            right = await sampled.tries(k, way)
            rows.append(Row.of(f"{way} @ {k}", family, right, k * sampled.per_run, sampled.computed(k)))
    for one in searches:
        row = one.row(family, sampled.questions)
        enough = next((k for k in range(1, sampled.runs) if k * sampled.per_run >= row.tokens), sampled.runs)
        beam = [k for name, k in (("sbs_1_5", 5), ("sbs_3_5", 15)) if one.name == name and k <= sampled.runs]
        for way, k in itertools.product(ways, sorted({enough, *beam})):
            row.tests.append(paired(one.right, await sampled.tries(k, way), way, k, k * sampled.per_run))
        rows.append(row)
    return rows


def paired(right: Right, sampled: Right, way: str, k: int, tokens: float) -> dict[str, Any]:
    """The search against the first k runs: questions gained and lost by it, and McNemar's p."""
    common = sorted(right.keys() & sampled.keys())
    gained, lost, p = mcnemar([right[i][0] for i in common], [sampled[i][0] for i in common])
    return {"against": f"{way} @ {k}", "tokens": tokens, "n": len(common), "gained": gained, "lost": lost, "p": p}


def said(test: dict[str, Any], tokens: float) -> str:
    short = " (fewer tokens)" if test["tokens"] < tokens else ""
    found = f"gained {test['gained']}, lost {test['lost']} of {test['n']}, p = {test['p']:.2g}"
    return f"{test['against'].replace('@', 'of')}{short}: {found}"


def tables(rows: Sequence[Row]) -> str:
    """Markdown: the rows of all questions together, the tests, and the families of the searches."""
    whole = [row for row in rows if row.family == "all"]
    cells = [[row.method, str(row.n), percent(row), f"{row.tokens:.0f}", f"{row.computed_tokens:.0f}"] for row in whole]
    text = markdown_table(("method", "n", "accuracy % (95 %)", "tokens generated", "computed"), cells)
    tested = [[row.method, said(test, row.tokens)] for row in whole for test in row.tests]
    text += "\n\n" + markdown_table(("search", "against sampled solutions"), tested)
    families = sorted({row.family for row in rows} - {"all"})
    if families:
        shown = {row.method for row in whole if row.tests} | {f"{way} @ {k}" for way in WAYS for k in (5, 15)}
        each = {(row.method, row.family): f"{row.accuracy:.1f} ({row.n})" for row in rows}
        names = [name for name in dict.fromkeys(row.method for row in whole) if name in shown]
        parts = [[name, *(each.get((name, family), "") for family in families)] for name in names]
        text += "\n\n" + markdown_table(("accuracy % (n)", *families), parts)
    return text + "\n"


def percent(row: Row) -> str:
    return f"{row.accuracy:.1f} ({row.low:.1f}–{row.high:.1f})"


async def compare(runs: Path, searches: Sequence[Path], output: Path, rule: str | None) -> None:
    """Writes equal_tokens.json, .md and .png. Raises UserError."""
    every, read = await read_sampled(runs, rule), [Searched.read(path) for path in searches]
    sampled = Sampled(every)
    if 0 < sampled.judged < sampled.answers:
        left = sampled.answers - sampled.judged
        print(f"{left} of {sampled.answers} sampled answers have no value; they count as the least", file=sys.stderr)
    rows = await rows_of("all", sampled, read)
    families = {one.family for one in every.values()} - {""}
    for family in sorted(families) if len(families) > 1 else ():
        rows += await rows_of(family, Sampled({i: one for i, one in every.items() if one.family == family}), read)
    make_folder(output)
    write_text_whole(output / "equal_tokens.json", json.dumps([asdict(one) for one in rows], indent=1) + "\n")
    write_text_whole(output / "equal_tokens.md", tables(rows))
    with write_whole(output / "equal_tokens.png") as file:
        draw(FIGURES["accuracy"], {"points": [asdict(one) for one in rows if one.family == "all"]}, file)
    print(tables(rows))


def search_configs(paths: Sequence[Path], samples: int, keys: Sequence[str]) -> Iterator[tuple[str, RunConfig]]:
    """(name, configuration), the one that samples first. Raises UserError unless exactly one has several runs."""
    read = {path.stem: load_config(path, keys) for path in paths}
    several = [name for name, config in read.items() if config.n_runs > 1]
    if len(several) != 1:
        raise UserError(f"--configs: expected exactly one with several runs (n_runs), found {several or 'none'}")
    yield (
        "sampled",
        read.pop(several[0]).model_copy(update={"n_runs": samples, "vote": "majority", "need_value_func": True}),
    )
    yield from read.items()


def search_questions(
    questions: Path, limit: int | None, configs: Sequence[tuple[str, RunConfig]], output: Path, live: bool
) -> tuple[Path, list[Path]]:
    """Searches what is missing, and returns the sampled file and the files of the searches."""
    n = min(limit or 1 << 62, count_questions(questions))
    model = load_model(configs[-1][1].model_copy(update={"need_value_func": True}))
    for name, config in configs:
        run_search(config, model, questions, n, output / f"{name}.jsonl", live)
    sampled, *searched = (output / f"{name}.jsonl" for name, _ in configs)
    return sampled, searched


@options.command(__doc__)
@options.questions("what is searched, with answers")
@click.option("--model", type=options.FILE, metavar="DIR", help="model folder  [default: the configurations']")
@click.option("--samples", type=options.Whole(2), default=32, help="sampled solutions a question")
@options.configs(CONFIGS, "YAML files, a method each; exactly one with several runs")
@options.overrides
@options.limit
@click.option("--sampled", type=options.FILE, metavar="FILE", help="tree file of several runs a question")
@click.option(
    "--searches", "--trees", cls=options.Several, type=options.FILE, metavar="FILE...",
    help="tree files of the same questions",
)  # fmt: skip
@options.path_value
@options.output("folder of equal_tokens.md, equal_tokens.json, equal_tokens.png and the trees")
@options.live
def command(
    questions: Path | None, model: Path | None, samples: int, configs: tuple[Path, ...], overrides: tuple[str, ...],
    limit: int | None, sampled: Path | None, searches: tuple[Path, ...], path_value: str | None,
    output: Path, live: bool,
) -> None:  # fmt: skip
    check_matplotlib()
    if (questions is None) == (sampled is None) or (sampled is not None and not searches):
        raise UserError("expected either --questions FILE, or --sampled FILE and --searches FILE...")
    if questions is not None:
        keys = [*overrides, *([f"model_dir={json.dumps(str(model))}"] if model else [])]
        read = list(search_configs(configs, samples, keys))
        sampled, found = search_questions(questions, limit, read, output, live)
        searches = tuple(found)
    assert sampled is not None
    asyncio.run(compare(sampled, searches, output, path_value))

"""Compares our searches with trees that the published system wrote over a scripted language model.

    python -m tests.parity --golden DIR

DIR holds `questions.jsonl`, `configs/NAME.yaml`, `NAME.trees.jsonl.gz`, `offline.jsonl.gz` and `scripted_lm.py`, a
language model that is a pure function of its prompt. Prints one line, and what differs; exits with 1 on a difference.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.data.questions import read_questions
from eval.grading.grader import Verdict, grade_async
from mcts.config import Config
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.markup import make_markup
from mcts.model import Context, Expansion, Sample, Sampling
from mcts.search.driver import Solver, solve_all
from mcts.search.offline import offline_inference
from mcts.trees.record import from_record
from models.engines.config import load_config

TEXT_FIELDS = ("text", "extra_info", "action", "action_input", "final_answer")
NUMBER_FIELDS = ("value", "prior", "visit_count", "q_value")


class ScriptedModel:
    """`LanguageModel` over a module with `step(prompt, i)` and `value(prompt)`. A piece of text is one token; a sample
    of n tokens is its text and n - 1 empty ones."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._texts: list[str] = [""]

    def encode(self, text: str) -> tuple[int, ...]:
        self._texts.append(text)
        return (len(self._texts) - 1,)

    def _prompt(self, context: Context) -> str:
        return "".join(self._texts[token] for token in context.all_token_ids())

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        prompt = self._prompt(context)
        samples = []
        for index in range(n):
            text, tokens, logprob = self._module.step(prompt, index)
            samples.append(Sample(self.encode(text) + (0,) * (tokens - 1), text, logprob, "stop"))
        return Expansion(self._module.value(prompt), tuple(samples))

    async def evaluate(self, context: Context) -> float:
        return float(self._module.value(self._prompt(context)))


async def same_answer(answers: Any, prediction: str) -> bool | None:
    verdict = (await grade_async(list(answers), prediction)).verdict
    return None if verdict is Verdict.UNDECIDED else verdict is Verdict.EQUAL


def load_scripted_model(path: Path) -> ScriptedModel:
    spec = importlib.util.spec_from_file_location("scripted_lm", path)
    if spec is None or spec.loader is None or not path.exists():
        raise UserError(f"{path}: no such file; expected a module with step(prompt, i) and value(prompt)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return ScriptedModel(module)


def read_gz(path: Path) -> list[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def differences(ours: dict[str, Any], golden: dict[str, Any]) -> Iterator[str]:
    """What is not the same in two saved trees: tags, texts, and numbers to 1e-9."""
    tags = [tag for tag in golden if tag != "solutions"]
    if [tag for tag in ours if tag != "solutions"] != tags:
        yield "other tags, or in another order"
        return
    for tag in tags:
        for field in TEXT_FIELDS:
            if ours[tag][field] != golden[tag][field]:
                yield f"{tag} {field}: {ours[tag][field]!r} instead of {golden[tag][field]!r}"
        for field in NUMBER_FIELDS:
            if field in golden[tag] and abs(ours[tag][field] - golden[tag][field]) > 1e-9:
                yield f"{tag} {field}: {ours[tag][field]} instead of {golden[tag][field]}"
    if ours.get("solutions") != golden.get("solutions"):
        yield f"solutions: {ours.get('solutions')} instead of {golden.get('solutions')}"


def published(config: Config) -> Config:
    """`config` by the published rules: a budget may end without an answer, and the word "Error" is an error."""
    return config.model_copy(update={"descend": False, "published_rules": True})


async def search_all(config: Config, golden_dir: Path) -> list[dict[str, Any]]:
    """Our trees of all questions of the folder."""
    model = load_scripted_model(golden_dir / "scripted_lm.py")
    markup = make_markup(config.prompt_wrap, config.step_delim, published=True)
    async with ForkInterpreter(profile="alphamath") as interpreter:
        solver = Solver(config, model, markup, interpreter, same_answer, config.seed or 0)
        records: dict[int, dict[str, Any]] = {}
        async for question, record in solve_all(solver, read_questions(golden_dir / "questions.jsonl"), 4):
            records[question.index] = record
    return [records[index] for index in sorted(records)]


def compare_trees(golden_dir: Path) -> tuple[int, int]:
    """(identical, all) over every run of the folder."""
    same = total = 0
    for path in sorted((golden_dir / "configs").glob("*.yaml")):
        golden = read_gz(golden_dir / f"{path.stem}.trees.jsonl.gz")
        ours = asyncio.run(search_all(published(load_config(path)), golden_dir))
        for mine, theirs in zip(ours, golden, strict=True):
            found = list(differences(mine["react"], theirs["react"]))
            total += 1
            same += not found
            for line in found[:5]:
                print(f"{path.stem}: {theirs['question']}: {line}", file=sys.stderr)
    return same, total


def compare_picks(golden_dir: Path) -> tuple[int, int]:
    """(identical, all) over the offline decisions of the folder."""
    same = total = 0
    trees: dict[str, dict[str, Any]] = {}
    for pick in read_gz(golden_dir / "offline.jsonl.gz"):
        name = pick["trees"]
        if name not in trees:
            trees[name] = {row["question"]: row["react"] for row in read_gz(golden_dir / f"{name}.trees.jsonl.gz")}
        answers = offline_inference(
            from_record(trees[name][pick["question"]]),
            strategy=pick["strategy"],
            beam_width=pick["step_beam_width"],
            samples=pick["n_generate_sample"],
            prune=pick["prune"],
            c_puct=pick["c_puct"],
        )
        best = (answers[0].tag, answers[0].final_answer) if answers else (None, None)
        total += 1
        same += best == (pick["tag"], pick["final_answer"])
        if best != (pick["tag"], pick["final_answer"]):
            print(f"{name}: {pick}: picked {best}", file=sys.stderr)
    return same, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, metavar="DIR")
    golden_dir: Path = parser.parse_args().golden
    try:
        trees, picks = compare_trees(golden_dir), compare_picks(golden_dir)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{trees[0]} of {trees[1]} trees identical, {picks[0]} of {picks[1]} picks identical")
    return 0 if trees[0] == trees[1] and picks[0] == picks[1] and trees[1] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Rounds of self-training: search the training questions, grade, make examples, train, evaluate, report; again.

python scripts/run_rounds.py --config configs/rounds/tiny.yaml [--set seed=2] [--set output=DIR]

Every stage is a command of its own, which continues its own unfinished work; a finished stage leaves NAME.done and is
skipped. So the same command goes on wherever it was killed and ends in the same place. docs/training.md has the keys.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eval.data.questions import count_questions, read_questions
from mcts.config import load_keys, make_keys
from mcts.errors import UserError
from scripts.assembly import run_command
from scripts.round_report import write_report

Method = Literal["alphamath", "ovm", "svpo"]
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alphamath": ({}, {}),
    "ovm": ({"targets": "outcome"}, {}),
    "svpo": ({"pairs": 8}, {"objective": "svpo"}),
}
"""Method → what it changes in the rules of the examples and in the keys of the training."""


class Evaluation(BaseModel):
    """A row of the report. set: overrides of the configuration; n: the first n held-out questions (0: all);
    rerank: instead of a configuration, an earlier row: the value head (OVM) decides its runs instead of a vote.
    siblings: the trees are made once, by the model of the first round that asks for them, and every round's value
    head ranks their siblings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    config: str = ""
    set: dict[str, Any] = {}
    n: int = Field(0, ge=0)
    rerank: str = ""
    siblings: bool = False

    @model_validator(mode="after")
    def one_source(self) -> Evaluation:
        if bool(self.config) == bool(self.rerank):
            raise ValueError("expected either config: FILE or rerank: ROW")
        return self


class RoundKeys(BaseModel):
    """One round. What a round does not say is taken from the top of the file.

    base: the model that is trained (and searches): `previous`, `start` or the name of an earlier round. searcher:
    the model that searches, where it is another. search: null for a round without search, whose `train_set` names its
    examples. trees: the name of an earlier round whose trees are used again.
    pooled: train on the examples of all rounds so far. evaluate: rows by name; null leaves a row of the file out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = ""
    base: str = "previous"
    searcher: str | None = None
    search: str | None = None
    search_set: dict[str, Any] = {}
    trees: str | None = None
    questions: str = ""
    questions_per_round: int | None = Field(None, ge=1)
    method: Method = "alphamath"
    examples: dict[str, Any] = {}
    pooled: bool = False
    train: str = ""
    train_set: dict[str, Any] = {}
    launch: list[str] = ["python"]
    held_out: str = ""
    evaluate: dict[str, Evaluation | None] | None = None

    def rows(self) -> list[tuple[str, Evaluation]]:
        return [(name, row) for name, row in (self.evaluate or {}).items() if row is not None]


class Rounds(RoundKeys):
    """A whole run. prepare: commands that make what the rounds read. {output} and {seed} are filled in everywhere."""

    output: str
    seed: int = 0
    start: str
    prepare: list[str] = []
    rounds: list[dict[str, Any]]


def merged(top: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a round over those of the file; dictionaries are merged key by key."""
    both = {
        key: {**top[key], **own[key]} for key in own if isinstance(own[key], dict) and isinstance(top.get(key), dict)
    }
    return {**top, **own, **both}


def filled(value: Any, places: Mapping[str, str]) -> Any:
    """Texts with {output} and {seed} filled in, inside lists and dictionaries too."""
    if isinstance(value, str):
        for name, text in places.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, list):
        return [filled(one, places) for one in value]
    return {key: filled(one, places) for key, one in value.items()} if isinstance(value, dict) else value


def overrides(keys: Mapping[str, Any], flag: str = "--set") -> list[str]:
    return [part for key, value in keys.items() for part in (flag, f"{key}={json.dumps(value)}")]


class Runner:
    """Runs the rounds of a file, stage by stage. Raises UserError; a failed command ends the run with its exit code."""

    def __init__(self, keys: Rounds) -> None:
        places = {"output": keys.output, "seed": str(keys.seed)}
        self.keys = Rounds.model_validate(filled(keys.model_dump(), places))
        self.output = Path(self.keys.output)
        top = self.keys.model_dump(include=set(RoundKeys.model_fields))
        known = {"start", "previous"}
        self.rounds: list[RoundKeys] = []
        for number, own in enumerate(self.keys.rounds):
            one = make_keys(RoundKeys, merged(top, {"name": str(number), **own}), f"rounds[{number}]")
            for name in (one.base, one.searcher, one.trees):
                if name is not None and name not in known:
                    raise UserError(f"rounds[{number}]: {name!r} is no earlier round; expected {sorted(known)}")
            before: set[str] = set()
            for row, evaluation in one.rows():
                if evaluation.rerank and evaluation.rerank not in before:
                    raise UserError(f"rounds[{number}]: {row}: rerank: no row {evaluation.rerank!r} before it")
                before.add(row)
            known.add(one.name)
            self.rounds.append(one)
        if len({one.name for one in self.rounds}) < len(self.rounds):
            raise UserError("rounds: two rounds have the same name")
        self.models: dict[str, Path] = {"start": Path(self.keys.start), "previous": Path(self.keys.start)}
        self.siblings: dict[str, Path] = {}
        self.searched = self.asked = 0  # rounds that searched, and the questions that they took

    def run(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / ".lock").open("w") as self.lock:
            self._wait_for_lock()
            self._run()

    def _wait_for_lock(self) -> None:
        """The lock is the run's and its commands': a command that outlived a killed run is waited for."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{self.output}: another run is at work here; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(self.lock, fcntl.LOCK_EX)

    def _run(self) -> None:
        environment = Path(sys.executable).parent
        os.environ["PATH"] = f"{environment}{os.pathsep}{os.environ.get('PATH', '')}"  # python, accelerate
        for number, command in enumerate(self.keys.prepare):
            try:
                parts = shlex.split(command)
            except ValueError as error:
                raise UserError(f"prepare[{number}]: {error}: {command}") from None
            self._stage(self.output, f"prepare{number}", parts)
        for one in self.rounds:
            self._round(one, self.output / one.name)
            write_report(self.output, [known.name for known in self.rounds])

    # --- a round

    def _round(self, one: RoundKeys, folder: Path) -> None:
        base = self.models[one.base]
        if one.search is not None:
            self._search(one, folder, self.models[one.searcher or one.base])
        self._train(one, folder, base)
        self.models[one.name] = self.models["previous"] = folder / "train" / "model"
        for name, evaluation in one.rows():
            self._evaluate(one, folder / "evaluate", name, evaluation)

    def _search(self, one: RoundKeys, folder: Path, model: Path) -> None:
        trees, examples = self.output / (one.trees or one.name) / "trees.jsonl", folder / "examples.jsonl"
        config = ["--custom_cfg", str(one.search), *overrides({**one.search_set, "model_dir": str(model)})]
        if one.trees is None:
            questions = self._questions(one, folder)
            seeded = [*config, *overrides({"seed": self.keys.seed * 1000 + self.searched})]
            self.searched += 1
            command = ["python", "solver_demo.py", *seeded, "--qaf", str(questions), "--output", str(trees)]
            self._stage(folder, "search", command)
            self._stage(folder, "grade", ["python", "scripts/grade_trees.py", str(trees)])
        rules = {"seed": self.keys.seed, **METHODS[one.method][0], **one.examples}
        command = ["python", "scripts/make_examples.py", *config, "--trees", str(trees), "--output", str(examples)]
        if one.trees is not None:
            command.append("--any-model")  # of this run, but of an earlier model
        self._stage(folder, "examples", [*command, *overrides(rules, "--rule")], clean=[examples])

    def _questions(self, one: RoundKeys, folder: Path) -> Path:
        """The round's share of the questions: all, or the next `questions_per_round` of them, going round."""
        if one.questions_per_round is None:
            return Path(one.questions)
        path = folder / "questions.jsonl"
        total = count_questions(one.questions, need_answer=True)
        first, n = self.asked, min(total, one.questions_per_round)
        self.asked += n
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            items = itertools.cycle(question.item for question in read_questions(one.questions))
            chosen = itertools.islice(items, first % total, first % total + n)
            write_atomically(path, "".join(json.dumps(item) + "\n" for item in chosen))
        return path

    def _train(self, one: RoundKeys, folder: Path, base: Path) -> None:
        known = itertools.takewhile(lambda other: other.name != one.name, self.rounds)
        names = [other.name for other in known if other.search is not None] if one.pooled else []
        examples = [str(self.output / name / "examples.jsonl") for name in (*names, one.name)]
        own = {"examples": examples} if one.search is not None else {}
        keys = {"seed": self.keys.seed, **METHODS[one.method][1], **own, **one.train_set}
        keys |= {"model_dir": str(base), "output": str(folder / "train")}
        self._stage(folder, "train", [*one.launch, "scripts/train.py", "--config", one.train, *overrides(keys)])

    def _evaluate(self, one: RoundKeys, folder: Path, name: str, evaluation: Evaluation) -> None:
        model, trees = folder.parent / "train" / "model", folder / f"{name}.jsonl"
        keys = {"seed": 0, **evaluation.set, "model_dir": str(model)}
        command = ["python", "solver_demo.py", "--custom_cfg", evaluation.config, *overrides(keys)]
        command += ["--qaf", one.held_out, *(["--limit", str(evaluation.n)] if evaluation.n else [])]
        if evaluation.siblings:
            self._rank_siblings(folder, name, model, command)
            return
        if evaluation.rerank:
            sampled = folder / f"{evaluation.rerank}.jsonl"
            command = ["python", "scripts/rerank.py", "--model", str(model), "--trees", str(sampled)]
        self._stage(folder, name, [*command, "--output", str(trees)], clean=[trees] if evaluation.rerank else None)

    def _rank_siblings(self, folder: Path, name: str, model: Path, search: list[str]) -> None:
        trees = self.siblings.setdefault(name, folder / f"{name}.trees.jsonl")
        if trees.parent == folder:
            self._stage(folder, trees.stem, [*search, "--output", str(trees)])
        result = folder / f"{name}.siblings.json"
        rank = ["python", "scripts/rank_siblings.py", "--trees", str(trees), "--model", str(model)]
        self._stage(folder, f"{name}.siblings", [*rank, "--json", str(result)])

    # --- a stage

    def _stage(self, folder: Path, name: str, command: list[str], clean: list[Path] | None = None) -> None:
        """Runs a command once. clean: what a killed command may have left and would not write over."""
        marker, key = folder / f"{name}.done", hashlib.sha256(json.dumps(command).encode()).hexdigest()[:16]
        if marker.exists():
            if json.loads(marker.read_text(encoding="utf-8"))["key"] != key:
                raise UserError(
                    f"{marker}: this stage was finished with other keys; choose another output, or delete {folder}"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        for path in clean or ():
            path.unlink(missing_ok=True)
        print(f"[{time.strftime('%H:%M:%S')}] {folder.name}: {name}: {shlex.join(command)}", flush=True)
        started = time.monotonic()
        program = [sys.executable, *command[1:]] if command[0] == "python" else command
        lock = self.lock.fileno()
        try:
            done = subprocess.run(program, stdout=subprocess.DEVNULL, pass_fds=[lock], preexec_fn=_die_with_parent)
        except OSError as error:
            raise UserError(f"{name}: {program[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise SystemExit(done.returncode)
        seconds = round(time.monotonic() - started, 1)
        write_atomically(marker, json.dumps({"key": key, "command": command, "seconds": seconds}) + "\n")


def _die_with_parent() -> None:
    """A command ends when its run is killed (Linux), so that the next run finds nobody at work."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML of the rounds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key; repeatable")
    arguments = parser.parse_args()
    runner = Runner(load_keys(Rounds, arguments.config, arguments.set))
    runner.run()
    print(runner.output / "report.md")
    return 0


if __name__ == "__main__":
    run_command(main)

"""Rounds of self-training: search the training questions, grade, make examples, train, evaluate, report; again.

Every stage is a command of its own (see stages.py). A stage is done again when the content of its inputs has changed
(keys of a configuration, weights, questions, trees, examples), and then so is what depends on its result; so the same
run goes on wherever it was killed and ends in the same place. docs/training.md has the keys.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mcts.config import find_beside, known, load_keys, make_keys
from mcts.errors import UserError
from mcts.jsonl import write_text_whole
from models.engines.config import RunConfig, load_config
from models.engines.folder import content_hash
from models.training.examples import ExampleRules, grades_path
from models.training.objectives import OBJECTIVES
from models.training.settings import EXAMPLE_FILES, TrainSettings
from models.training.stages import Stages, digest

COMMANDS = ("solve", "grade-trees", "examples", "imitation", "correct", "train", "rerank", "rank-siblings")


@dataclass(frozen=True)
class Tools:
    """What the floor above gives to the rounds.

    commands: each of COMMANDS → the words that start it. questions: file → its items, all of them with an answer;
    raises UserError. report: (output folder, names of rounds) → writes what is known of them so far.
    """

    commands: Mapping[str, Sequence[str]]
    questions: Callable[[Path], Sequence[Mapping[str, Any]]]
    report: Callable[[Path, Sequence[str]], None]


class Evaluation(BaseModel):
    """A row of the report. set: overrides of the configuration; questions: a file of its own, instead of the round's
    `held_out`; n: the first n of them (0: all);
    rerank: instead of a configuration, an earlier row: the value head (OVM) decides its runs instead of a vote.
    siblings: the trees are made once, by the model of the first round that asks for them, and every round's value
    head ranks their siblings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    FILES: ClassVar = ("config", "questions")

    config: str = ""
    set: dict[str, Any] = {}
    questions: str = ""
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
    examples. trees: the name of an earlier round whose trees are used again. method: an objective, which also says
    what the examples need. launch, search_launch: the words in place of `python` in front of trainings and of searches
    (`accelerate launch ...`, the python of another environment). pooled: train on the examples of all rounds so far.
    evaluate: rows by name; null leaves a row of the file out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field("", pattern=r"^[^/\\]*$")
    base: str = "previous"
    searcher: str | None = None
    search: str | None = None
    search_set: dict[str, Any] = {}
    trees: str | None = None
    questions: str = ""
    questions_per_round: int | None = Field(None, ge=1)
    method: str = "alphamath"
    examples: dict[str, Any] = {}
    pooled: bool = False
    train: str = ""
    train_set: dict[str, Any] = {}
    launch: list[str] = ["python"]
    search_launch: list[str] = ["python"]
    held_out: str = ""
    evaluate: dict[str, Evaluation | None] | None = None

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, value: str) -> str:
        return known(OBJECTIVES, value)

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
    return [part for item in items(keys) for part in (flag, item)]


def items(keys: Mapping[str, Any]) -> list[str]:
    """key=value for each key."""
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


class Runner:
    """Runs the rounds of a file. Raises UserError; a failed command ends the run with its exit code.

    Every configuration is read, and every name is looked up, before anything is run.
    """

    def __init__(self, keys: Rounds, tools: Tools, source: Path = Path()) -> None:
        """source: the folder of the YAML file."""
        places = {"output": keys.output, "seed": str(keys.seed)}
        self.keys = Rounds.model_validate(filled(keys.model_dump(), places))
        self.tools, self.source = tools, source
        self.prepare = [filled(line, {"seed": str(keys.seed)}) for line in keys.prepare]
        self.output = Path(self.keys.output)
        self.stages = Stages(self.output)
        self.rounds = self._read_rounds()
        start = Path(self._found(self.keys.start))
        self.models: dict[str, Path] = {"start": start, "previous": start}
        self.siblings: dict[str, Path] = {}
        self.searched = self.asked = 0  # rounds that searched, and the questions that they took

    def run(self) -> None:
        with self.stages.alone():
            self._run()

    def _run(self) -> None:
        self._prepare()
        for one in self.rounds:
            self._round(one, self.output / one.name)
            self.tools.report(self.output, [known.name for known in self.rounds])

    # --- before any work

    def _found(self, path: str) -> str:
        return find_beside(path, self.source)

    def _read_rounds(self) -> list[RoundKeys]:
        top = self.keys.model_dump(include=set(RoundKeys.model_fields))
        earlier: list[RoundKeys] = []
        for number, own in enumerate(self.keys.rounds):
            one = make_keys(RoundKeys, merged(top, {"name": str(number), **own}), f"rounds[{number}]")
            one = self._resolved(one)
            try:
                check_names(one, earlier)
                self._check_configurations(one)
            except UserError as error:
                raise UserError(f"rounds[{number}]: {error}") from None
            earlier.append(one)
        return earlier

    def _resolved(self, one: RoundKeys) -> RoundKeys:
        """The round with its paths as they are found."""
        rows = {
            name: row and row.model_copy(update={key: self._found(getattr(row, key)) for key in row.FILES})
            for name, row in (one.evaluate or {}).items()
        }
        files = {key: self._found(getattr(one, key)) for key in ("questions", "train", "held_out")}
        train_set = {
            key: [self._found(path) for path in value] if key in EXAMPLE_FILES else value
            for key, value in one.train_set.items()
        }
        launches = {key: [self._word(word) for word in getattr(one, key)] for key in ("launch", "search_launch")}
        search = one.search and self._found(one.search)
        return one.model_copy(update={**files, "train_set": train_set, **launches, "search": search, "evaluate": rows})

    def _word(self, word: str) -> str:
        """A word of a command, as the file that it names is found."""
        return self._found(word) if "/" in word or "." in word else word

    def _check_configurations(self, one: RoundKeys) -> None:
        if one.search is not None:
            if not one.questions:
                raise UserError("questions: expected the file that is searched")
            self._configuration(one.search, one.search_set)
            make_keys(ExampleRules, self._rules(one), "examples")
        self._training(one, Path("of-the-round"), [Path("of-the-round")])
        for name, row in one.rows():
            if not (row.questions or one.held_out):
                raise UserError(f"evaluate: {name}: held_out: expected the file that is evaluated on")
            if row.config:
                self._configuration(row.config, row.set)

    # --- what the stages are given

    @staticmethod
    def _configuration(path: str, keys: Mapping[str, Any]) -> RunConfig:
        return load_config(path, items(keys))

    def _rules(self, one: RoundKeys) -> dict[str, Any]:
        return {"seed": self.keys.seed, **OBJECTIVES[one.method].examples, **one.examples}

    def _training(self, one: RoundKeys, base: Path, examples: Sequence[Path]) -> tuple[TrainSettings, dict[str, Any]]:
        """The settings of a round's training, and what of them is said beside its YAML. examples: of the round."""
        own = {"examples": [str(path) for path in examples]} if one.search is not None else {}
        keys = {"seed": self.keys.seed, "objective": one.method, **own, **one.train_set}
        keys |= {"model_dir": str(base), "output": str(self.output / one.name / "train")}
        return load_keys(TrainSettings, one.train, items(keys)), keys

    def _searching(self, path: str, keys: Mapping[str, Any], model: Path, questions: Path) -> dict[str, str]:
        """The inputs of a search."""
        config = self._configuration(path, {**keys, "model_dir": str(model)})
        prompts = [content_hash(file) for file in (config.prompt_path, config.few_shot_path) if file]
        inputs = {"configuration": digest([config.fingerprint(), prompts])}
        return inputs | {"model": content_hash(model), "questions": content_hash(questions)}

    def _command(self, name: str, *words: str | Path, launch: Sequence[str] = ("python",)) -> list[str]:
        program, *start = self.tools.commands[name]
        return [*([program] if list(launch) == ["python"] else launch), *start, *map(str, words)]

    # --- a round

    def _prepare(self) -> None:
        before = ""
        for number, line in enumerate(self.prepare):
            try:
                raw = shlex.split(line)
            except ValueError as error:
                raise UserError(f"prepare[{number}]: {error}: {line}") from None
            words = [self._word(filled(word, {"output": str(self.output)})) for word in raw]
            inputs = {"command": digest(raw), "files": digest(self._named(words)), "earlier commands": before}
            written = [Path(words[at + 1]) for at, word in enumerate(words[:-1]) if word == "--output"]
            outputs = [path for path in written if path.resolve().is_relative_to(self.output.resolve())]
            self.stages.run(self.output, f"prepare{number}", words, inputs, outputs, continues=True)
            before = digest(inputs)

    def _named(self, words: Sequence[str]) -> list[str]:
        """The content of the files and models that a command names, those that rounds make left out."""
        paths = [Path(word) for word in words if "/" in word or "." in word]
        own = self.output.resolve()
        kept = [path for path in paths if path.is_file() or (path / "config.json").is_file()]
        return [content_hash(path) for path in kept if not path.resolve().is_relative_to(own)]

    def _round(self, one: RoundKeys, folder: Path) -> None:
        base = self.models[one.base]
        if one.search is not None:
            self._search(one, folder, self.models[one.searcher or one.base])
        self._train(one, base)
        self.models[one.name] = self.models["previous"] = folder / "train" / "model"
        for name, row in one.rows():
            self._evaluate(one, folder / "evaluate", name, row)

    def _search(self, one: RoundKeys, folder: Path, model: Path) -> None:
        assert one.search is not None
        trees, examples = self.output / (one.trees or one.name) / "trees.jsonl", folder / "examples.jsonl"
        keys = {**one.search_set, "model_dir": str(model)}
        if one.trees is None:
            questions = self._questions(one, folder)
            seeded = {**keys, "seed": self.keys.seed * 1000 + self.searched}
            self.searched += 1
            command = self._command("solve", "--custom_cfg", one.search, *overrides(seeded), launch=one.search_launch)
            command += ["--qaf", str(questions), "--output", str(trees)]
            inputs = self._searching(one.search, seeded, model, questions)
            self.stages.run(folder, "search", command, inputs, [trees], continues=True)
            command = self._command("grade-trees", trees)
            self.stages.run(folder, "grade", command, {"trees": content_hash(trees)}, [grades_path(trees)])
        rules = self._rules(one)
        command = self._command("examples", "--custom_cfg", one.search, *overrides(keys), "--trees", trees)
        command += ["--output", str(examples), *overrides(rules, "--rule")]
        if one.trees is not None:
            command.append("--any-model")  # of this run, but of an earlier model
        inputs = {"trees": content_hash(trees), "verdicts": content_hash(grades_path(trees)), "rules": digest(rules)}
        inputs |= self._spelling(one.search, keys, model)
        self.stages.run(folder, "examples", command, inputs, [examples])

    def _spelling(self, path: str, keys: Mapping[str, Any], model: Path) -> dict[str, str]:
        """The inputs that say how a search's texts become token ids."""
        config = self._configuration(path, keys)
        return {"configuration": config.fingerprint(), "model": content_hash(model)}

    def _questions(self, one: RoundKeys, folder: Path) -> Path:
        """The round's share of the questions: all, or the next `questions_per_round` of them, going round."""
        if one.questions_per_round is None:
            return Path(one.questions)
        every = self.tools.questions(Path(one.questions))
        count = min(len(every), one.questions_per_round)
        first, path = self.asked, folder / "questions.jsonl"
        self.asked += count
        text = "".join(json.dumps(every[at % len(every)]) + "\n" for at in range(first, first + count))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            folder.mkdir(parents=True, exist_ok=True)
            write_text_whole(path, text)
        return path

    def _train(self, one: RoundKeys, base: Path) -> None:
        known = itertools.takewhile(lambda other: other.name != one.name, self.rounds)
        names = [other.name for other in known if other.search is not None] if one.pooled else []
        examples = [self.output / name / "examples.jsonl" for name in (*names, one.name)]
        settings, keys = self._training(one, base, examples)
        command = self._command("train", "--config", one.train, *overrides(keys), launch=one.launch)
        folder = self.output / one.name
        self.stages.run(folder, "train", command, settings.inputs(), [folder / "train"], continues=True)

    def _evaluate(self, one: RoundKeys, folder: Path, name: str, row: Evaluation) -> None:
        model, trees = folder.parent / "train" / "model", folder / f"{name}.jsonl"
        if row.rerank:
            sampled = folder / f"{row.rerank}.jsonl"
            command = self._command("rerank", "--model", model, "--trees", sampled, "--output", trees)
            inputs = {"model": content_hash(model), "trees": content_hash(sampled)}
            self.stages.run(folder, name, command, inputs, [trees])
        elif row.siblings:
            self._rank_siblings(one, folder, name, row)
        else:
            self._solve_held_out(one, folder, name, row, trees)

    def _solve_held_out(self, one: RoundKeys, folder: Path, name: str, row: Evaluation, trees: Path) -> None:
        model = folder.parent / "train" / "model"
        keys = {"seed": 0, **row.set, "model_dir": str(model)}
        command = self._command("solve", "--custom_cfg", row.config, *overrides(keys), launch=one.search_launch)
        questions = row.questions or one.held_out
        command += ["--qaf", questions, *(["--limit", str(row.n)] if row.n else []), "--output", str(trees)]
        inputs = self._searching(row.config, keys, model, Path(questions)) | {"n": str(row.n)}
        self.stages.run(folder, name, command, inputs, [trees], continues=True)

    def _rank_siblings(self, one: RoundKeys, folder: Path, name: str, row: Evaluation) -> None:
        model, result = folder.parent / "train" / "model", folder / f"{name}.siblings.json"
        trees = self.siblings.setdefault(name, folder / f"{name}.trees.jsonl")
        if trees.parent == folder:
            self._solve_held_out(one, folder, trees.stem, row, trees)
        command = self._command("rank-siblings", "--trees", trees, "--model", model, "--json", result)
        inputs = {"model": content_hash(model), "trees": content_hash(trees)}
        self.stages.run(folder, f"{name}.siblings", command, inputs, [result])


def check_names(one: RoundKeys, earlier: Sequence[RoundKeys]) -> None:
    """Raises UserError for a round that names what there is not before it."""
    models = {"start", "previous", *(other.name for other in earlier)}
    if one.name in models or one.name in ("", ".", ".."):
        raise UserError(f"name: two rounds have the same name {one.name!r}, or it is no name of a folder")
    for name in (one.base, one.searcher):
        if name is not None and name not in models:
            raise UserError(f"{name!r} is no earlier round; expected {sorted(models)}")
    searched = [other.name for other in earlier if other.search is not None and other.trees is None]
    if one.trees is not None and one.trees not in searched:
        raise UserError(f"trees: {one.trees!r} is no earlier round with a search of its own; expected {searched}")
    if one.trees is not None and one.search is None:
        raise UserError("trees: needs search, the configuration that the trees were made with")
    before: set[str] = set()
    for row, evaluation in one.rows():
        if evaluation.rerank and evaluation.rerank not in before:
            raise UserError(f"{row}: rerank: no row {evaluation.rerank!r} of trees before it")
        if not evaluation.siblings:
            before.add(row)

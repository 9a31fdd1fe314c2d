"""Run ToRA's inference on its data sets: the same options and output files, by any search.

arbor infer --model_name_or_path FOLDER --data_name gsm8k,math --data_dir DATA --use_train_prompt_format
arbor infer --config configs/tiny/sbs_3_5.yaml --data_name all --data_dir DATA --end 100

A run that is stopped goes on with the same command. `--data_name all`: the ten tasks (the four of MAWPS are one file),
and AVG@10. Runs over parts of a data set (--start, --end) are read together by `arbor evaluate`.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from arbor.assembly import describe, load_markup, load_model, open_writer
from arbor.commands import _options
from arbor.commands._progress import Progress, search_all
from eval.data.datasets import DATASETS, Item, load
from eval.grading.grader import Verdict, grade_async
from eval.grading.tora import extract_tora, reference_fields, strip_string
from eval.report.methods import by_data_set, tasks_table
from eval.report.rows import read_rows
from eval.report.scores import AVG10
from mcts.config import Config, read_keys
from mcts.errors import UserError, nearest
from mcts.jsonl import read_objects, write_text_whole
from mcts.markup import MARKUPS
from mcts.question import Question
from mcts.search.budget import SharedBudget
from mcts.search.driver import Solver
from mcts.search.offline import decided_by
from mcts.trees.file import TreeWriter, unfinished_output
from mcts.trees.node import FAILURES, walk
from mcts.trees.record import from_record
from models.engines.config import RunConfig, make_config, recorded_fingerprint
from models.engines.registry import ENGINES, describe_model

Options = SimpleNamespace  # those of the command line, by name
KEPT = ("level", "type", "solution", "solution_type", "ques_type", "ans_type")
PUBLISHED: dict[str, Any] = {
    "mode": "react", "prompt_wrap": "tora", "temperature": 0.0, "seed": 0, "max_tokens": 1024, "max_tool_calls": 3,
    "code_state": "fresh", "code_profile": "tora", "code_timeout": 5.0, "num_few_shot": 8, "errors_threshold": 8,
    "max_depth": 32, "max_total_time": 86400.0,
}  # fmt: skip
OPTIONS = {
    "prompt_type": "prompt_wrap", "model_name_or_path": "model_dir", "seed": "seed", "temperature": "temperature",
    "top_p": "top_p", "n_sampling": "n_runs", "max_tokens_per_call": "max_tokens", "max_func_call": "max_tool_calls",
    "use_train_prompt_format": "train_prompt", "code_state": "code_state",
}  # fmt: skip


def read_config(options: Options, name: str) -> RunConfig:
    """The published settings, the configuration over them, the options over both."""
    keys = read_keys(options.config)
    given = {key: getattr(options, option) for option, key in OPTIONS.items()}
    keys = (keys or PUBLISHED) | {key: value for key, value in given.items() if value is not None}
    keys |= read_keys(None, options.overrides)
    keys["seed"] = keys.get("seed") or 0
    keys["result_unwrap"] = keys.get("prompt_wrap", "react")
    entry = MARKUPS[keys["result_unwrap"]]
    keys.setdefault("step_delim", entry.step_delim)
    if examples := entry.examples_file(DATASETS[name].level if name in DATASETS else ""):
        keys.setdefault("few_shot_path", str(examples))
    config = make_config(keys, str(options.config or "the options"))
    if config.model_dir is None and ENGINES[config.engine].needs(config) != "none":
        raise UserError("--model_name_or_path is missing: name the folder of a model")
    return config


# --- the questions


def choose_items(options: Options, name: str, seed: int) -> list[Item]:
    """What is asked: sampled, shuffled (both by the seed), then cut."""
    items = load(name, options.data_dir, correct_golds=options.correct_golds, split=options.split)
    noise = random.Random(f"{seed} {name}")
    if 0 <= options.num_test_sample < len(items):
        chosen = set(noise.sample(range(len(items)), options.num_test_sample))
        items = [item for place, item in enumerate(items) if place in chosen]
    if options.shuffle:
        noise.shuffle(items)
    items = items[options.start : None if options.end == -1 else options.end]
    if not items:
        raise UserError(f"{name}: no question between --start {options.start} and --end {options.end}")
    return items


def choose_questions(options: Options, name: str, seed: int) -> list[Question]:
    """What is asked, each with a number of its own. Raises UserError."""
    found = [question(item, name) for item in choose_items(options, name, seed)]
    index, times = Counter(one.index for one in found).most_common(1)[0]
    if times > 1:
        raise UserError(f'{name}: {times} rows have "idx" {index}; expected a number of its own for each')
    return found


def question(item: Item, name: str) -> Question:
    """The question, with what a row of the output holds of its source. Raises UserError."""
    index = item.fields.get("idx", item.index)
    if type(index) is not int and not (isinstance(index, str) and index.isdecimal()):
        raise UserError(f'{name}, row {item.index}: "idx": expected a whole number, found {index!r:.40}')
    index = int(index)
    answers = list(item.answers)
    row: dict[str, Any] = {"idx": index, "question": item.question}
    row |= reference_fields(name, item.fields, answers[0])
    row |= {key: item.fields[key] for key in KEPT if key in item.fields}
    row["answer"] = answers if len(answers) > 1 else answers[0]
    return Question(index, row, f"{name}, question {index}")


# --- the rows


@dataclass
class RowSolver:
    """A solver whose records are ToRA's rows. tool_calls in `meta`: programs of each sample."""

    solver: Solver

    @property
    def config(self) -> Config:
        return self.solver.config

    @property
    def shared(self) -> SharedBudget | None:
        return self.solver.shared

    @shared.setter
    def shared(self, shared: SharedBudget) -> None:
        self.solver.shared = shared

    async def solve(self, question: Question) -> dict[str, Any]:
        record = await self.solver.solve(question)
        samples = [self._sample(tree) for tree in [record["react"], *record.get("runs", [])]]
        code, pred, report, calls = (list(column) for column in zip(*samples, strict=True))
        gold = [strip_string(one) for one in question.answers] if len(question.answers) > 1 else question.item["gt"]
        verdicts = [(await grade_async(gold, answer, "tora")).verdict for answer in pred]
        row = {**question.item, "code": code, "pred": pred, "report": report}
        row["score"] = [verdict is Verdict.EQUAL for verdict in verdicts]
        row["meta"] = record["meta"] | {"tool_calls": calls, "undecided": verdicts.count(Verdict.UNDECIDED)}
        return row

    def _sample(self, tree: Mapping[str, Any]) -> tuple[str, str, str | None, int]:
        """(trajectory, answer, what went wrong, programs) of the solution that a tree stands for."""
        tags = self._chosen(tree).split(".")
        nodes = [tree[".".join(tags[: depth + 1])] for depth in range(1, len(tags))]
        code = self.solver.markup.step_delim.join(node["text"] for node in nodes).strip()
        last = nodes[-1]["final_answer"] if nodes else ""
        found = "" if last in FAILURES else last
        pred = (
            extract_tora(code)
            if MARKUPS[self.solver.config.prompt_wrap].answer_from == "prose"
            else strip_string(found)
        )
        return code, pred, None if found else last or "no answer", sum(bool(node["action"]) for node in nodes)

    def _chosen(self, tree: Mapping[str, Any]) -> str:
        """The tag of the best solution's leaf; without a solution, of the first deepest node."""
        config = self.solver.config
        if tree.get("solutions"):
            return str(tree["solutions"][0]["tag"])
        root = from_record(tree)
        if config.mode == "mcts" and (found := decided_by(config, root)):  # as the search decided
            return found[0].tag
        return max(walk(root), key=lambda node: node.depth).tag


def output_path(options: Options, name: str, config: RunConfig, fingerprint: str, rows: int) -> Path:
    """The newest file of the same run where there is one, else a new one under ToRA's name."""
    model = Path(config.model_dir or describe_model(config)["name"]).resolve().parts[-2:]
    folder = options.output_dir.joinpath(*(model if config.model_dir else model[-1:]), name)
    kind = config.prompt_wrap + ("" if config.mode == "react" else f"_{config.mode}")
    count = rows if options.num_test_sample == -1 else options.num_test_sample
    stem = f"{options.split}_{kind}_{count}_seed{config.seed}_t{config.temperature}"
    stem += f"_s{options.start}_e{options.end}" + (f"_{options.shard.name}" if options.shard else "")
    stamp = "_" + datetime.datetime.now().strftime("%m-%d_%H-%M")
    places = (folder / f"{stem}{stamp}{f'-{n}' if n > 1 else ''}.jsonl" for n in itertools.count(1))
    unfinished = unfinished_output(folder / stem, "_??-??_??-??*", fingerprint, rows + 1, recorded_fingerprint)
    return unfinished or next(path for path in places if not path.exists())


def metrics_path(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.stem}_{kind}.metrics")


def write_metrics(path: Path, kind: str, seconds: float) -> None:
    """The published lines beside an output file. `Timeout samples` counts what the grader could not decide."""
    rows = [row for _, row in read_objects(path)]
    scores = [row["score"] for row in rows]
    means = [round(100 * sum(column) / len(rows), 1) for column in zip(*scores, strict=True)]
    lines = [f"Num samples: {len(rows)}", f"Num scores: {len(scores)}"]
    lines.append(f"Timeout samples: {sum(row['meta']['undecided'] for row in rows)}")
    lines += [f"Empty samples: {sum(not row['pred'][-1] for row in rows)}", f"Mean score: {means}"]
    if "type" in rows[0]:
        right, total = Counter[str](), Counter[str]()
        for row in rows:  # of all samples, not of the last one
            right[row["type"]] += sum(row["score"])
            total[row["type"]] += len(row["score"])
        lines.append(f"Type scores: { {kind: round(100 * right[kind] / total[kind], 1) for kind in sorted(total)} }")
    lines += ["", f"Time use: {seconds:.2f}s", f"Time use: {int(seconds) // 60}:{int(seconds) % 60:02}"]
    write_text_whole(metrics_path(path, kind), "\n".join(lines) + "\n")


# --- the command


@dataclass
class Task:
    """A data set whose output file is open."""

    name: str
    config: RunConfig
    questions: list[Question]
    meta: dict[str, Any]
    writer: TreeWriter
    progress: Progress


def prepare(options: Options, name: str, config: RunConfig) -> Task:
    """Everything of a data set that can fail before a model is there. Raises UserError."""
    questions = choose_questions(options, name, config.seed or 0)
    meta = describe(config)
    prompt = load_markup(config).prompt("")
    shown = prompt if isinstance(prompt, str) else repr(prompt)
    meta["fingerprint"] += "-" + hashlib.sha256(shown.encode()).hexdigest()[:8]
    if options.shard is not None:
        _, meta["shard"] = options.shard.describe(questions, config)
        questions = list(options.shard.part(questions, config.budget_block))
    path = output_path(options, name, config, meta["fingerprint"], len(questions))
    progress = Progress(len(questions), lambda row: row["score"][0], name, live=options.live)
    return Task(name, config, questions, meta, open_writer(path, meta, progress), progress)


def infer(task: Task, model: Any) -> Path:
    """One data set → its output file."""
    config, writer = task.config, task.writer
    metrics = metrics_path(writer.path, config.prompt_wrap)
    if len(writer.done) < len(task.questions) or not metrics.exists():
        started = time.monotonic()
        search_all(config, model, task.questions, writer, task.meta, task.progress, RowSolver)
        write_metrics(writer.path, config.prompt_wrap, time.monotonic() - started)
        task.progress.conclude(writer.path)
    return writer.path


def check_names(data_name: str) -> list[str]:
    """The data sets that --data_name stands for. Raises UserError."""
    names = list(AVG10) if data_name == "all" else list(dict.fromkeys(data_name.split(",")))
    if unknown := [name for name in names if name not in DATASETS]:
        raise UserError(
            f"--data_name {unknown[0]}: unknown{nearest(unknown[0], ['all', *DATASETS])}; "
            f"expected all, or some of {', '.join(DATASETS)}"
        )
    return names


def option(
    name: str, kind: Any = None, default: Any = None, *, help: str, **keys: Any
) -> Callable[[_options.Function], _options.Function]:
    return click.option(name, type=kind, default=default, help=help, **keys)


@_options.command(__doc__)
@option("--data_name", default="gsm8k", help=f"all, or some of {', '.join(DATASETS)}, with commas")
@option("--data_dir", _options.FILE, Path("data"), help="holds NAME/SPLIT.jsonl")
@click.option("--output", "--output_dir", "output_dir", type=_options.FILE, default=Path("output"), help="folder")
@option("--split", default="test", help="which file of a data set")
@option("--num_test_sample", int, -1, help="a random choice of N questions (-1: all)")
@option("--shuffle", is_flag=True, help="in an order that the seed gives")
@option("--start", int, 0, help="the first question, counted from 0")
@option("--end", int, -1, help="the question after the last (-1: to the end)")
@click.option("--limit", type=_options.Whole(1), help="only N questions from --start, instead of --end")
@_options.shard
@option("--correct_golds", is_flag=True, help="repair the known slips in MATH's answers")
@click.option(
    "--config",
    "--custom_cfg",
    "config",
    type=_options.FILE,
    metavar="FILE",
    help="YAML: search, markup, engine  [default: ToRA's settings]",
)
@_options.overrides
@option("--model_name_or_path", help="model folder  [default: the configuration's]")
@option("--prompt_type", help="tora, pal, cot, chat, react or react_sft  [default: tora]")
@click.option("--seed", type=_options.SEED, help="of the sampling noise and of the choice of questions  [default: 0]")
@option("--temperature", float, help="of the sampling  [default: 0]")
@option("--top_p", float, help="share of the probability that is sampled from  [default: 1]")
@option("--n_sampling", int, help="solutions a question  [default: 1]")
@option("--max_tokens_per_call", int, help="tokens a step  [default: 1024]")
@option("--max_func_call", int, help="programs a solution  [default: 3]")
@option("--use_train_prompt_format", is_flag=True, default=None, help="<|user|> ... prompts")
@_options.live
@option("--code_state", click.Choice(("fresh", "carried")), help="a new state for each block, or not  [default: fresh]")
def command(limit: int | None, **given: Any) -> None:
    options = Options(**given)
    if limit is not None:
        options.end = options.start + limit
    if options.start < 0 or options.end < -1:
        raise UserError(
            f"--start {options.start} --end {options.end}: expected positions from 0 (--end -1: to the end)"
        )
    if options.num_test_sample < -1:
        raise UserError(f"--num_test_sample {options.num_test_sample}: expected how many questions, or -1 for all")
    tasks = [prepare(options, name, read_config(options, name)) for name in check_names(options.data_name)]
    model = load_model(tasks[0].config)
    paths = [infer(task, model) for task in tasks]
    print("\n".join(map(str, paths)))
    print(tasks_table(by_data_set({path: read_rows(path, "tora") for path in paths}), "tora"))

"""ToRA's inference on its data sets: the same options, the same output files, by any search.

python scripts/infer.py --model_name_or_path FOLDER --data_name gsm8k,math --data_dir DATA --use_train_prompt_format
python scripts/infer.py --custom_cfg configs/tiny/sbs_3_5.yaml --data_name all --data_dir DATA --end 100

A run that is stopped goes on with the same command. `--data_name all`: the ten tasks (the four of MAWPS are one file),
and AVG@10. Runs over parts of a data set (--start, --end) are read together by scripts/evaluate.py.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import hashlib
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval.data.datasets import DATASETS, Item, load
from eval.grading.grader import Verdict, grade_async
from eval.grading.tora import extract_tora, reference_fields, strip_string
from eval.report.scores import AVG10
from mcts.config import Config, make_config, read_keys
from mcts.errors import UserError, nearest
from mcts.jsonl import read_objects
from mcts.markup import MARKUPS
from mcts.question import Question
from mcts.search.budget import SharedBudget
from mcts.search.driver import Solver, run_file
from mcts.search.offline import offline_inference
from mcts.trees.file import TreeWriter, unfinished_output
from mcts.trees.node import FAILURES, walk
from mcts.trees.record import from_record
from scripts.assembly import describe, load_markup, load_model, open_solver, run_command
from scripts.evaluate import by_data_set, read_rows, tasks_table
from solver_demo import Progress

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


def parse_arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_name", default="gsm8k", help=f"all, or some of {', '.join(DATASETS)}, with commas")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="holds NAME/SPLIT.jsonl")
    parser.add_argument("--output_dir", type=Path, default=Path("output"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--num_test_sample", type=int, default=-1, help="a random choice of N questions (-1: all)")
    parser.add_argument("--shuffle", action="store_true", help="in an order that the seed gives")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--end", type=int, default=-1)
    parser.add_argument("--correct_golds", action="store_true", help="repair the known slips in MATH's answers")
    parser.add_argument("--custom_cfg", type=Path, metavar="CFG", help="YAML: search, markup, engine (default: ToRA's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key; repeatable")
    parser.add_argument("--model_name_or_path", help="model folder")
    parser.add_argument("--prompt_type", help="tora (default), pal, cot, react or react_sft")
    parser.add_argument("--seed", type=int, help="default 0")
    parser.add_argument("--temperature", type=float, help="default 0")
    parser.add_argument("--top_p", type=float, help="default 1")
    parser.add_argument("--n_sampling", type=int, help="solutions a question (default 1)")
    parser.add_argument("--max_tokens_per_call", type=int, help="default 1024")
    parser.add_argument("--max_func_call", type=int, help="programs a solution (default 3)")
    parser.add_argument("--use_train_prompt_format", action="store_true", default=None, help="<|user|> ... prompts")
    parser.add_argument("--code_state", choices=("fresh", "carried"), help="default fresh: a new state for each block")
    return parser.parse_args(line)


def read_config(arguments: argparse.Namespace, name: str) -> Config:
    """The published settings, the configuration over them, the options over both."""
    keys = read_keys(arguments.custom_cfg)
    given = {key: getattr(arguments, option) for option, key in OPTIONS.items()}
    keys = (keys or PUBLISHED) | {key: value for key, value in given.items() if value is not None}
    keys |= read_keys(None, arguments.set)
    keys["seed"] = keys.get("seed") or 0
    keys["result_unwrap"] = keys.get("prompt_wrap", "react")
    entry = MARKUPS[keys["result_unwrap"]]
    keys.setdefault("step_delim", entry.step_delim)
    if examples := entry.examples_file(DATASETS[name].level if name in DATASETS else ""):
        keys.setdefault("few_shot_path", str(examples))
    config = make_config(keys, str(arguments.custom_cfg or "the options"))
    if config.model_dir is None:
        raise UserError("--model_name_or_path is missing: name the folder of a model")
    return config


# --- the questions


def choose_items(arguments: argparse.Namespace, name: str, seed: int) -> list[Item]:
    """What is asked: sampled, shuffled (both by the seed), then cut."""
    items = load(name, arguments.data_dir, correct_golds=arguments.correct_golds, split=arguments.split)
    noise = random.Random(f"{seed} {name}")
    if 0 <= arguments.num_test_sample < len(items):
        chosen = set(noise.sample(range(len(items)), arguments.num_test_sample))
        items = [item for place, item in enumerate(items) if place in chosen]
    if arguments.shuffle:
        noise.shuffle(items)
    items = items[arguments.start : None if arguments.end == -1 else arguments.end]
    if not items:
        raise UserError(f"{name}: no question between --start {arguments.start} and --end {arguments.end}")
    return items


def choose_questions(arguments: argparse.Namespace, name: str, seed: int) -> list[Question]:
    """What is asked, each with a number of its own. Raises UserError."""
    found = [question(item, name) for item in choose_items(arguments, name, seed)]
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
        prose = MARKUPS[self.solver.config.prompt_wrap].answer_from == "prose"
        pred = extract_tora(code) if prose else strip_string(found)
        return code, pred, None if found else last or "no answer", sum(bool(node["action"]) for node in nodes)

    def _chosen(self, tree: Mapping[str, Any]) -> str:
        """The tag of the best solution's leaf; without a solution, of the first deepest node."""
        config = self.solver.config
        if tree.get("solutions"):
            return str(tree["solutions"][0]["tag"])
        root = from_record(tree)
        if config.mode == "mcts":
            width, samples = config.step_beam_width, config.n_generate_sample
            strategy = config.mcts_infer_strategy
            if found := offline_inference(root, strategy=strategy, beam_width=width, samples=samples):
                return found[0].tag
        return max(walk(root), key=lambda node: node.depth).tag


def output_path(arguments: argparse.Namespace, name: str, config: Config, fingerprint: str, rows: int) -> Path:
    """The newest file of the same run where there is one, else a new one under ToRA's name."""
    folder = arguments.output_dir.joinpath(*Path(str(config.model_dir)).resolve().parts[-2:], name)
    kind = config.prompt_wrap + ("" if config.mode == "react" else f"_{config.mode}")
    count = rows if arguments.num_test_sample == -1 else arguments.num_test_sample
    stem = f"{arguments.split}_{kind}_{count}_seed{config.seed}_t{config.temperature}"
    stem += f"_s{arguments.start}_e{arguments.end}"
    stamp = "_" + datetime.datetime.now().strftime("%m-%d_%H-%M")
    places = (folder / f"{stem}{stamp}{f'-{n}' if n > 1 else ''}.jsonl" for n in itertools.count(1))
    unfinished = unfinished_output(folder / stem, "_??-??_??-??*", fingerprint, rows + 1)
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
    metrics_path(path, kind).write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- the command


@dataclass
class Task:
    """A data set whose output file is open."""

    name: str
    config: Config
    questions: list[Question]
    meta: dict[str, Any]
    writer: TreeWriter


def prepare(arguments: argparse.Namespace, name: str, config: Config) -> Task:
    """Everything of a data set that can fail before a model is there. Raises UserError."""
    questions = choose_questions(arguments, name, config.seed or 0)
    meta = describe(config)
    meta["fingerprint"] += "-" + hashlib.sha256(load_markup(config).prompt("").encode()).hexdigest()[:8]
    path = output_path(arguments, name, config, meta["fingerprint"], len(questions))
    writer = TreeWriter(path, meta["fingerprint"])
    writer.open(resume=True)
    return Task(name, config, questions, meta, writer)


async def infer(task: Task, model: Any) -> Path:
    """One data set → its output file."""
    config, questions, writer = task.config, task.questions, task.writer
    metrics = metrics_path(writer.path, config.prompt_wrap)
    if len(writer.done) == len(questions) and metrics.exists():
        return writer.path
    progress, started = Progress(len(questions), len(writer.done)), time.monotonic()
    progress.bar.set_description(task.name)
    async with open_solver(config, model, task.meta, config.seed or 0) as solver:
        await run_file(
            RowSolver(solver),
            questions,
            writer,
            config.questions_in_flight,
            lambda row: progress.count(row["score"][0]),
        )
    progress.bar.close()
    write_metrics(writer.path, config.prompt_wrap, time.monotonic() - started)
    return writer.path


def main() -> int:
    arguments = parse_arguments()
    names = list(AVG10) if arguments.data_name == "all" else list(dict.fromkeys(arguments.data_name.split(",")))
    if arguments.start < 0 or arguments.end < -1:
        raise UserError(
            f"--start {arguments.start} --end {arguments.end}: expected positions from 0 (--end -1: to the end)"
        )
    if arguments.num_test_sample < -1:
        raise UserError(f"--num_test_sample {arguments.num_test_sample}: expected how many questions, or -1 for all")
    if unknown := [name for name in names if name not in DATASETS]:
        raise UserError(
            f"--data_name {unknown[0]}: unknown{nearest(unknown[0], ['all', *DATASETS])}; "
            f"expected all, or some of {', '.join(DATASETS)}"
        )
    configs = [read_config(arguments, name) for name in names]
    tasks = [prepare(arguments, name, config) for name, config in zip(names, configs, strict=True)]
    model = load_model(configs[0])
    paths = [asyncio.run(infer(task, model)) for task in tasks]
    print("\n".join(map(str, paths)))
    print(tasks_table(by_data_set({path: read_rows(path, "tora") for path in paths}), "tora"))
    return 0


if __name__ == "__main__":
    run_command(main)

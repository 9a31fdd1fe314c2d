"""What a running search does, while it runs: on a terminal a panel that is drawn anew, elsewhere plain lines."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from eval.report.scores import wilson
from mcts.search.driver import Solver
from mcts.trees.node import Node, walk

if TYPE_CHECKING:
    from arbor.commands._progress import Progress
    from models.training.trainer import Trainer

LINE_SECONDS = 10.0
WINDOW_SECONDS = 60.0
"""Rates are means over this time."""
ROWS = 24  # of the tree that are drawn


class Facts(Protocol):
    """What a display shows of a run."""

    def lines(self) -> list[tuple[str, str]]:
        """(name, what is said of it), what is known alone."""

    def drawing(self) -> list[str]:
        """Further lines, which a terminal alone shows."""


@dataclass(frozen=True)
class Reading:
    """Sums since the beginning. busy: seconds in which the engine computed; None: the engine does not say."""

    at: float
    done: int
    prompts: int
    computed: int
    reused: int
    busy: float | None


class SearchFacts:
    """Reads what the progress, the engine and the interpreter of a run say of themselves."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.solver: Solver | None = None
        self.root: Node | None = None
        self._readings: deque[Reading] = deque([self._read()])

    def attach(self, solver: Solver) -> None:
        """What is searched with. Of a run of one question the tree is followed, too."""
        self.solver = solver
        self._readings = deque([self._read()])
        if self.progress.total == 1:
            before = solver.watcher

            def watch(node: Node) -> None:
                self._found(node)
                if before is not None:
                    before(node)

            solver.watcher = watch

    def _found(self, node: Node) -> None:
        while node.parent is not None:
            node = node.parent
        self.root = node

    def _read(self) -> Reading:
        totals: Any = getattr(self.solver.model, "totals", None) if self.solver is not None else None
        prompts, computed, reused = (
            getattr(totals, name, 0) for name in ("prompt_tokens", "tokens_computed", "tokens_reused")
        )
        busy = getattr(totals, "busy_seconds", None)
        return Reading(time.monotonic(), self.progress.done, prompts, computed, reused, busy)

    def drawing(self) -> list[str]:
        return tree_lines(self.root) if self.root is not None else []

    def lines(self) -> list[tuple[str, str]]:
        now = self._read()
        self._readings.append(now)
        while len(self._readings) > 2 and now.at - self._readings[0].at > WINDOW_SECONDS:
            self._readings.popleft()
        first = self._readings[0]
        seconds = max(1e-3, now.at - first.at)
        things, total = f"{self.progress.unit}s", self.progress.total
        facts = [(things, f"{now.done} of {total}" if total is not None else f"{now.done}")]
        facts += [("accuracy", self._accuracy()), *pace(now.done - first.done, seconds, things, now.done, total)]
        if now.computed:
            speed, share = (now.computed - first.computed) / seconds, 100 * now.reused / max(1, now.prompts)
            facts.append(("tokens", f"{now.computed} computed ({speed:.0f} a second), {share:.0f} % of prompts reused"))
        if now.busy is not None and first.busy is not None:
            facts.append(("engine", f"{min(100.0, 100 * (now.busy - first.busy) / seconds):.0f} % busy"))
        load = getattr(self.solver.interpreter, "load", None) if self.solver is not None else None
        if load is not None:
            facts.append(("interpreter", f"{load[0]} of {load[1]} places run code"))
        if self.progress.reasons:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.progress.reasons.most_common(4))
            facts.append(("no answer", reasons))
        return [(name, fact) for name, fact in facts if fact]

    def _accuracy(self) -> str:
        right, graded = self.progress.right, self.progress.graded
        if not graded:
            return ""
        low, high = wilson(right, graded)
        return f"{100 * right / graded:.1f} % right (95 %: {low:.1f}–{high:.1f}) of {graded}"


class TrainFacts:
    """Reads what a training writes of itself (metrics.jsonl)."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._readings: deque[tuple[float, int]] = deque(maxlen=20)

    def drawing(self) -> list[str]:
        return []

    def lines(self) -> list[tuple[str, str]]:
        plan = getattr(self._trainer, "plan", None)
        rows = self._rows("train")
        if plan is None or not rows:
            return [("updates", "none yet")]
        row = rows[-1]
        done = int(row["update"])
        if not self._readings or self._readings[-1][1] != done:
            self._readings.append((time.monotonic(), done))
        (since, first), (until, _) = self._readings[0], self._readings[-1]
        facts = [
            ("updates", f"{done} of {plan.updates}"),
            *pace(done - first, until - since, "updates", done, plan.updates),
        ]
        known = {key: value for key, value in row.items() if key not in ("update", "kind") and value}
        facts.append(("training", ", ".join(f"{key} {value:.4g}" for key, value in known.items())))
        if held_out := self._rows("eval"):
            facts.append(("held out", f"loss {held_out[-1]['loss']:.4g} at update {held_out[-1]['update']}"))
        return facts

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        """The reports of a kind so far; the last line may be half written."""
        path = self._trainer.output / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [row for row in rows if row["kind"] == kind]


def pace(done: int, seconds: float, things: str, at: int, total: int | None) -> list[tuple[str, str]]:
    """Throughput and time left of a run that did `done` things in the last `seconds` and stands at `at` of `total`."""
    if not done or seconds <= 0:
        return []
    rate = done / seconds
    left = (total - at) / rate if total is not None else 0
    return [("throughput", f"{60 * rate:.1f} {things} a minute"), ("time left", clock(left) if left else "")]


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def safe(text: str, length: int) -> str:
    """A text on one line without a character that a terminal obeys."""
    line = "".join(char if char.isprintable() else " " for char in text[: 4 * length])
    line = " ".join(line.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def tree_lines(root: Node) -> list[str]:
    """The part of a tree with the most visits, or of the greatest value, one line a node."""
    weight = {node.tag: (node.visit_count, node.value, -node.depth) for node in walk(root)}
    chosen = set(sorted(weight, key=lambda tag: weight[tag], reverse=True)[:ROWS])
    lines = []

    def add(node: Node, depth: int) -> None:
        estimate = f"Q {node.q_value:+.2f} N {node.visit_count}" if node.visit_count else f"value {node.value:+.2f}"
        words = f"= {safe(node.final_answer, 30)}" if node.answered else safe(node.reason or _said(node), 44)
        lines.append(f"{'  ' * depth}{node.tag.rpartition('.')[2]}  {estimate if node.value > -2 else ''}  {words}")
        for child in node.children:
            if child.tag in chosen:
                add(child, depth + 1)

    add(root, 0)
    return lines[:ROWS]


def _said(node: Node) -> str:
    """The step without the tags of its markup."""
    text = node.text
    for tag in ("<step>", "<p>", "</p>", "<code>", "```python", "```", "</code>", "<output>", "</output>", "</step>"):
        text = text.replace(tag, " ")
    return text or "question"


class _NoBars(io.TextIOBase):
    """Standard error without the bars that others draw there (what begins with a carriage return)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._dropped = stream, False

    def write(self, text: str) -> int:
        self._dropped = text.startswith("\r") or (self._dropped and text in ("", "\n"))
        if not self._dropped:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


class Display:
    """Shows the facts of a run on standard error, until it is left: a panel on a terminal, elsewhere a plain line every
    LINE_SECONDS and at the end. Bars of what runs meanwhile are left out."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._ended = threading.Event()
        self._stack = ExitStack()
        self._error = sys.stderr

    def __enter__(self) -> Self:
        if self._error.isatty() and importlib.util.find_spec("rich") is not None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._error)
            self._stack.enter_context(Live(get_renderable=self._draw, console=console, refresh_per_second=4))
        else:
            thread = threading.Thread(target=self._write_lines, daemon=True)
            thread.start()
            self._stack.callback(self._write_line)
            self._stack.callback(thread.join)
            self._stack.callback(self._ended.set)
        self._stack.enter_context(redirect_stderr(_NoBars(sys.stderr)))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, fact in self.facts.lines():
            table.add_row(Text(name, style="bold"), Text(fact))
        return Group(table, *(Text(line, no_wrap=True, overflow="ellipsis") for line in self.facts.drawing()))

    def _write_lines(self) -> None:
        while not self._ended.wait(LINE_SECONDS):
            self._write_line()

    def _write_line(self) -> None:
        facts = [f"{name}: {fact}" for name, fact in self.facts.lines() if fact]
        print("; ".join(facts), file=self._error, flush=True)

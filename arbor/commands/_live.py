"""What a running search does, while it runs: on a terminal a panel that is drawn anew, elsewhere plain lines."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.report.scores import wilson
from mcts.search.driver import Solver
from mcts.trees.node import Node, walk

if TYPE_CHECKING:
    from arbor.commands._progress import Progress

LINE_SECONDS = 10.0
WINDOW_SECONDS = 60.0
"""Rates are means over this time."""
ROWS = 24  # of the tree that are drawn


@dataclass(frozen=True)
class Reading:
    """Sums since the beginning. busy: seconds in which the engine computed; None: the engine does not say."""

    at: float
    done: int
    prompts: int
    computed: int
    reused: int
    busy: float | None


class Facts:
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

    def lines(self) -> list[tuple[str, str]]:
        """(name, what is said of it), what is known alone."""
        now = self._read()
        self._readings.append(now)
        while len(self._readings) > 2 and now.at - self._readings[0].at > WINDOW_SECONDS:
            self._readings.popleft()
        first = self._readings[0]
        seconds = max(1e-3, now.at - first.at)
        facts = [("questions", f"{now.done} of {self.progress.total}"), ("accuracy", self._accuracy())]
        rate = (now.done - first.done) / seconds
        if rate:
            left = (self.progress.total - now.done) / rate
            facts.append(("throughput", f"{60 * rate:.1f} questions a minute"))
            facts.append(("time left", clock(left) if left else ""))
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


class Display:
    """Shows the facts of a run on standard error until it is closed."""

    def __init__(self, progress: Progress) -> None:
        self.facts = Facts(progress)
        self._ended = threading.Event()
        self._panel: Any = None
        if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._panel = Live(get_renderable=self._draw, console=console, refresh_per_second=4, transient=False)
            self._panel.start()
        else:
            self._thread = threading.Thread(target=self._write_lines, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._panel is not None:
            self._panel.stop()
        else:
            self._thread.join()
            self._write_line()

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, fact in self.facts.lines():
            table.add_row(Text(name, style="bold"), Text(fact))
        tree = tree_lines(self.facts.root) if self.facts.root is not None else []
        return Group(table, *(Text(line, no_wrap=True, overflow="ellipsis") for line in tree))

    def _write_lines(self) -> None:
        while not self._ended.wait(LINE_SECONDS):
            self._write_line()

    def _write_line(self) -> None:
        print("; ".join(f"{name}: {fact}" for name, fact in self.facts.lines()), file=sys.stderr, flush=True)

"""The figures of a tree file that reports print beside accuracy: one entry a column.

Another package adds one with `COLUMNS.add(name, Column(...))` or by an entry point of the group `arbor.columns`; it
stands in every report then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcts.registry import Registry

Record = Mapping[str, Any]
COST, DEMO, ROUNDS = "cost", "demo", "rounds"


@dataclass(frozen=True)
class Column:
    """The sum over a file's records of `read` over the sum of `per`.

    title: the heading. read: what a record says, None where it does not say it (then the column is left out).
    per: what is divided by; None: the number of questions. form: how the figure is written.
    reports: "cost" (what a question cost: `arbor evaluate`), "demo" (the table of `arbor demo`), "rounds" (that of
    `arbor rounds`).
    """

    title: str
    read: Callable[[Record], float | None]
    per: Callable[[Record], float | None] | None = None
    form: str = "{:.0f}"
    reports: frozenset[str] = frozenset({COST, DEMO, ROUNDS})

    def figure(self, records: Sequence[Record]) -> float | None:
        above = [self.read(one) for one in records]
        below = [1.0 if self.per is None else self.per(one) for one in records]
        if None in above or None in below:
            return None
        return sum(filter(None, above)) / (sum(filter(None, below)) or 1.0)

    def cell(self, records: Sequence[Record]) -> str:
        figure = self.figure(records)
        return "–" if figure is None else self.form.format(figure)


def meta(key: str, times: float = 1) -> Callable[[Record], float | None]:
    """A number of a record's `meta`, `times` over."""

    def read(record: Record) -> float | None:
        value = (record.get("meta") or {}).get(key)
        return times * value if isinstance(value, int | float) else None

    return read


def _answered(record: Record) -> float:
    return float(record.get("prediction") is not None)


def _steps(record: Record) -> float:
    return str(record["prediction"]["tag"]).count(".") if record.get("prediction") else 0.0


def _distinct(record: Record) -> float:
    return distinct_tokens([record["react"], *record.get("runs", [])])


def distinct_tokens(trees: Iterable[Mapping[str, Any]]) -> int:
    """How many different prompts-so-far the trees of one question hold, one a token: what cannot be computed less.

    Steps that begin with the same tokens share them.
    """
    trie: dict[Any, Any] = {}
    count = 0
    for tree in trees:
        ends = {"": trie}
        for tag, node in tree.items():
            if tag == "solutions":
                continue
            at = ends[tag.rpartition(".")[0]]
            for token in node["token_ids"]:
                if token not in at:
                    at[token] = {}
                    count += 1
                at = at[token]
            ends[tag] = at
    return count


_COST, _DEMO = frozenset({COST}), frozenset({DEMO})
OWN = {
    "steps": Column("steps", _steps, _answered, "{:.1f}", _DEMO),
    "tokens_generated": Column("generated", meta("tokens_generated"), reports=frozenset({COST, ROUNDS})),
    "simulations": Column("simulations", meta("simulations")),
    "tokens_computed": Column("computed", meta("tokens_computed")),
    "tokens_reused": Column("reused", meta("tokens_reused", 100), meta("prompt_tokens"), "{:.0f} %", _DEMO),
    "tokens_over_distinct": Column("÷ distinct", meta("tokens_computed"), _distinct, "{:.2f}", _DEMO),
    "snippets": Column("snippets", meta("snippets"), reports=_COST),
    "code_seconds": Column("code seconds", meta("code_seconds"), reports=_COST),
    "wall_seconds": Column("wall seconds", meta("wall_seconds"), reports=_COST),
}
COLUMNS: Registry[Column] = Registry("report column", "arbor.columns", {})
for _name, _column in OWN.items():
    COLUMNS.add(_name, _column)


def columns(report: str) -> dict[str, Column]:
    """The columns of a report by name: ours in their order, then others."""
    names = [*OWN, *(name for name in COLUMNS if name not in OWN)]
    return {name: COLUMNS[name] for name in names if report in COLUMNS[name].reports}

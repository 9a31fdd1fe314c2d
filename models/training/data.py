"""Training examples in memory, and batches of them: unrolled, or as trees that hold each shared prefix once.

In a tree a token is a node whose parent is the token before it. Attention is restricted to ancestors and positions
count depth, so a token's hidden state is what it would be in its own path; what several paths ask of a token
(cross-entropy, value target) is summed over them. Loss and gradients are those of the unrolled paths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcts.errors import UserError
from mcts.jsonl import read_objects

LENGTH_STEP = 16  # batches are padded to multiples of this


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One path. learned: for each token, whether the policy learns it. targets: (position, value in [-1, 1])."""

    token_ids: np.ndarray  # [T] int32
    learned: np.ndarray  # [T] bool
    targets: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Pair:
    """Two continuations of one prefix. `scored` of each: which tokens the preference compares.

    reference: the log-probabilities of both under the reference model, once they are known.
    """

    chosen: Trajectory
    rejected: Trajectory
    reference: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Unit:
    """What is drawn together: one example, or all examples of a question."""

    sequences: tuple[Trajectory, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(len(one.token_ids) for one in self.all_sequences())

    def all_sequences(self) -> Iterator[Trajectory]:
        yield from self.sequences
        for pair in self.pairs:
            yield from (pair.chosen, pair.rejected)


# --- reading


def _sequence(where: str, ids: Any, mask: Any, targets: Any, learn: bool) -> Trajectory:
    token_ids, learned = np.asarray(ids, np.int32), np.asarray(mask, bool)
    if token_ids.ndim != 1 or token_ids.shape != learned.shape or not len(token_ids):
        raise UserError(f"{where}: token_ids and loss_mask must be lists of one length, at least 1")
    kept = tuple((int(at), float(value)) for at, value in targets)
    if any(not 0 <= at < len(token_ids) for at, _ in kept):
        raise UserError(f"{where}: a target stands outside the {len(token_ids)} tokens")
    if not all(-1 <= value <= 1 for _, value in kept):
        raise UserError(f"{where}: a target is no value from -1 to 1")
    return Trajectory(token_ids, learned if learn else np.zeros_like(learned), kept)


def _pair(where: str, line: dict[str, Any]) -> Pair:
    sides = []
    for name in ("chosen", "rejected"):
        prefix, side = line["prefix"], line[name]
        ids, mask = prefix + side["token_ids"], [0] * len(prefix) + side["loss_mask"]
        sides.append(_sequence(where, ids, mask, [(len(ids) - 1, side["q_value"])], True))
    chosen, rejected = sides
    return Pair(chosen, rejected)


@dataclass
class Kept:
    """Which example lines are used, of those that were read. kinds: that are used at all; too_long: sequences of more
    than `max_tokens`; lengths: of each line of such a kind the tokens of its longest sequence."""

    max_tokens: int
    kinds: frozenset[str] = frozenset({"path", "pair"})
    other_kinds: int = 0
    lengths: list[int] = field(default_factory=list)

    def takes(self, kind: str, unit: Unit) -> bool:
        if kind not in self.kinds:
            self.other_kinds += 1
            return False
        self.lengths.append(max(len(one.token_ids) for one in unit.all_sequences()))
        return self.lengths[-1] <= self.max_tokens

    @property
    def too_long(self) -> int:
        return sum(length > self.max_tokens for length in self.lengths)

    def counts(self) -> dict[str, int]:
        """What is written into the metrics."""
        lines = len(self.lengths)
        return {"used": lines - self.too_long, "too_long": self.too_long, "of_other_kinds": self.other_kinds}

    def check(self, name: str, share: float) -> list[str]:
        """What is to be said of the files of the key `name`. Raises UserError where nothing is left, or more than
        `share` of the lines is too long."""
        lines = len(self.lengths)
        if not lines:
            wanted = " or ".join(sorted(self.kinds))
            raise UserError(f"{name}: no example of kind {wanted} in it ({self.other_kinds} of other kinds)")
        long = f"{name}: {self.too_long} of {lines} examples are longer than max_tokens {self.max_tokens}"
        if self.too_long == lines or self.too_long > share * lines:
            longest = sorted(self.lengths)
            raise UserError(
                f"{long}; at most max_too_long ({share:g}) of them may be: "
                f"max_tokens {longest[math.ceil(0.95 * lines) - 1]} keeps 95 % of them, {longest[-1]} all"
            )
        said = [f"{long} and left out"] if self.too_long else []
        if self.other_kinds:
            said.append(f"{name}: {self.other_kinds} lines are of a kind that this objective does not use and left out")
        return said


def read_examples(path: Path, vocabulary: int, kept: Kept) -> Iterator[tuple[str, Unit]]:
    """(group, unit of one example) of each line that is used. Raises UserError."""
    for where, line in read_objects(path):
        try:
            kind = line["kind"]
            if kind == "pair":
                unit = Unit(pairs=(_pair(where, line),))
            else:
                learn = line.get("correct") is not False
                parts = line["token_ids"], line["loss_mask"], line.get("targets", ())
                unit = Unit(sequences=(_sequence(where, *parts, learn),))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"{where}: not an example line ({type(error).__name__}: {error})") from None
        if any(int(one.token_ids.max()) >= vocabulary or one.token_ids.min() < 0 for one in unit.all_sequences()):
            raise UserError(f"{where}: a token id is outside the model's vocabulary of {vocabulary}")
        if kept.takes(kind, unit):
            yield str(line.get("group", where)), unit


def read_units(paths: Iterable[Path], vocabulary: int, kept: Kept, by_group: bool) -> list[Unit]:
    """The units of some files, one for each used line, or for each group of lines. Raises UserError for bad lines."""
    found = [item for path in paths for item in read_examples(path, vocabulary, kept)]
    if not by_group:
        return [unit for _, unit in found]
    groups: dict[str, list[Unit]] = {}
    for group, unit in found:
        groups.setdefault(group, []).append(unit)
    return [
        Unit(tuple(s for unit in units for s in unit.sequences), tuple(p for unit in units for p in unit.pairs))
        for units in groups.values()
    ]


# --- batches


@dataclass(frozen=True)
class Batch:
    """Tokens and what is asked of them; `*_at` count positions in the flattened [B · T].

    token_ids, positions: [B, T]; mask: [B, 1, T, T] bool (who attends to whom), None for plain causal rows.
    policy_at, policy_token, policy_weight: [n]; value_at, value_target, value_weight: [m];
    pair_at, pair_token: [k] with pair_side: [k], 2 · pair for chosen, 2 · pair + 1 for rejected tokens;
    pair_end: [p, 2], where the two steps end; reference: [p, 2].
    """

    token_ids: Tensor
    positions: Tensor
    mask: Tensor | None
    policy_at: Tensor
    policy_token: Tensor
    policy_weight: Tensor
    value_at: Tensor
    value_target: Tensor
    value_weight: Tensor
    pair_at: Tensor
    pair_token: Tensor
    pair_side: Tensor
    pair_end: Tensor
    reference: Tensor

    def to(self, device: torch.device) -> Batch:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: one.to(device) for name, one in moved.items() if one is not None})


@dataclass
class Tree:
    """Tokens with their parents, one row of a batch. A single path is a tree without branches."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    branched: bool = False

    def insert(self, token_ids: Sequence[int]) -> list[int]:
        """The node of each token, shared with earlier paths as far as they begin with the same tokens."""
        at, nodes = -1, []
        for depth, token in enumerate(token_ids):
            key = (at, token)
            known = self.children.get(key)
            if known is None:
                known = self.children[key] = len(self.tokens)
                self.branched |= at != known - 1
                self.tokens.append(token)
                self.parents.append(at)
                self.depths.append(depth)
            at = known
            nodes.append(at)
        return nodes

    def missing(self, token_ids: Sequence[int]) -> int:
        """How many nodes an `insert` would add."""
        at = -1
        for depth, token in enumerate(token_ids):
            known = self.children.get((at, token))
            if known is None:
                return len(token_ids) - depth
            at = known
        return 0

    def ancestors(self, length: int) -> np.ndarray:
        """[length, length] bool: row i may attend to column j. Padding attends to itself."""
        seen = np.eye(length, dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


@dataclass
class _Layout:
    """The rows of a batch in the making, with what is asked of their tokens (row, node, …)."""

    trees: list[Tree] = field(default_factory=list)
    policy: dict[tuple[int, int, int], float] = field(default_factory=dict)  # (row, node, token) → weight
    value: dict[tuple[int, int, float], float] = field(default_factory=dict)  # (row, node, target) → weight
    scored: list[tuple[int, int, int, int]] = field(default_factory=list)  # row, node, token, side
    ends: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    reference: list[tuple[float, float]] = field(default_factory=list)

    def add(self, unit: Unit, shared: bool) -> None:
        tree = self._row() if shared else None
        for one in unit.sequences:
            self._place(one, tree, None)
        for pair in unit.pairs:
            side = 2 * len(self.ends)
            self.ends.append((self._place(pair.chosen, tree, side), self._place(pair.rejected, tree, side + 1)))
            self.reference.append(pair.reference)

    def _row(self) -> Tree:
        self.trees.append(Tree())
        return self.trees[-1]

    def _place(self, one: Trajectory, tree: Tree | None, side: int | None) -> tuple[int, int]:
        tree = tree or self._row()
        row, tokens = len(self.trees) - 1, one.token_ids.tolist()
        nodes = tree.insert(tokens)
        for at in np.flatnonzero(one.learned[1:]).tolist():
            if side is not None:
                self.scored.append((row, nodes[at], tokens[at + 1], side))
            else:
                key = (row, nodes[at], tokens[at + 1])
                self.policy[key] = self.policy.get(key, 0.0) + 1.0
        for at, target in one.targets:
            where = (row, nodes[at], target)
            self.value[where] = self.value.get(where, 0.0) + 1.0
        return row, nodes[-1]


def _columns(rows: Sequence[Sequence[float]], **types: torch.dtype) -> dict[str, Tensor]:
    """Name → its column of the rows: [n]."""
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    return {name: torch.tensor(one, dtype=types[name]) for name, one in zip(types, columns, strict=True)}


def blank_batch(trees: Sequence[Tree]) -> Batch:
    """The tokens of some trees, one a row, of which nothing is asked."""
    length = -(-max(1, *(len(tree.tokens) for tree in trees)) // LENGTH_STEP) * LENGTH_STEP
    token_ids = torch.zeros(len(trees), length, dtype=torch.long)  # [B, T]
    positions = torch.zeros(len(trees), length, dtype=torch.long)  # [B, T]
    for row, tree in enumerate(trees):
        token_ids[row, : len(tree.tokens)] = torch.tensor(tree.tokens, dtype=torch.long)
        positions[row, : len(tree.tokens)] = torch.tensor(tree.depths, dtype=torch.long)
    mask = None
    if any(tree.branched for tree in trees):
        mask = torch.from_numpy(np.stack([tree.ancestors(length) for tree in trees]))[:, None]  # [B, 1, T, T]
    whole, real = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    pairs = torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2)
    return Batch(token_ids, positions, mask, whole, whole, real, whole, real, real, whole, whole, whole, *pairs)


def make_batch(units: Sequence[Unit], shared: bool) -> Batch:
    """A batch of all sequences of some units; `shared` puts each unit into one row with shared prefixes.

    An empty batch has one row of padding, so that every process has something to send through the network.
    """
    layout = _Layout()
    for unit in units:
        layout.add(unit, shared)
    blank = blank_batch(layout.trees or [Tree()])
    length = blank.token_ids.shape[1]
    whole, real = torch.long, torch.float32
    policy = [(row * length + at, token, weight) for (row, at, token), weight in layout.policy.items()]
    value = [(row * length + at, target, weight) for (row, at, target), weight in layout.value.items()]
    scored = [(row * length + at, token, side) for row, at, token, side in layout.scored]
    ends = [[row * length + at for row, at in pair] for pair in layout.ends]
    return replace(
        blank,
        **_columns(policy, policy_at=whole, policy_token=whole, policy_weight=real),
        **_columns(value, value_at=whole, value_target=real, value_weight=real),
        **_columns(scored, pair_at=whole, pair_token=whole, pair_side=whole),
        pair_end=torch.tensor(ends, dtype=whole).view(-1, 2),
        reference=torch.tensor(layout.reference, dtype=real).view(-1, 2),
    )


def tree_tokens(unit: Unit) -> int:
    """How many tokens are left of a unit when each shared prefix stands once."""
    tree = Tree()
    for one in unit.all_sequences():
        tree.insert(one.token_ids.tolist())
    return len(tree.tokens)


@dataclass(frozen=True)
class Totals:
    """What an update asks for over all processes: the denominators of its means."""

    policy: float
    value: float
    pairs: float

    @classmethod
    def of(cls, units: Iterable[Unit]) -> Totals:
        units = list(units)
        sequences = [one for unit in units for one in unit.sequences]
        everything = [one for unit in units for one in unit.all_sequences()]
        return cls(
            float(sum(int(one.learned[1:].sum()) for one in sequences)),
            float(sum(len(one.targets) for one in everything)),
            float(sum(len(unit.pairs) for unit in units)),
        )

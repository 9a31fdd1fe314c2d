"""Values of every node of searched trees: rerank sampled solutions (OVM), rank siblings.

The trees of a question are cut into rows of a bounded number of tokens, each with its own copy of what its paths begin
with, and rows are computed in batches of a bounded size: attention costs the square of a row, not of the question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mcts.errors import UserError
from mcts.trees.node import Node, walk
from models.training.data import Tree, blank_batch
from models.training.folders import load_policy_value

ROW_TOKENS = 512
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}


@dataclass
class Row:
    """Some paths in one row of a batch. ends: where nodes end in it, (tree, tag) → position."""

    tree: Tree = field(default_factory=Tree)
    ends: dict[tuple[int, str], int] = field(default_factory=dict)


class Scorer:
    """The value head of a model folder on finished trees.

    device: `auto` takes the GPU that is there; on it the weights stay in the precision that they are stored in. Raises
    UserError for a folder without a model.
    """

    def __init__(self, folder: str | Path, device: str = "auto", row_tokens: int = ROW_TOKENS) -> None:
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(name)
        on_cpu = self.device.type == "cpu"
        module = load_policy_value(folder, dtype=torch.float32 if on_cpu else "auto")
        self.module = module.eval().to(self.device)
        self.row_tokens, self.batch_tokens = row_tokens, BATCH_TOKENS["cpu" if on_cpu else "cuda"]
        self.vocabulary: int = module.causal.config.get_text_config().vocab_size

    @torch.inference_mode()
    def values(self, roots: Sequence[Node], where: str = "the tree") -> list[dict[str, float]]:
        """Tag → value in (-1, 1) for every node of some trees of one question, whose steps carry token ids.

        Raises UserError for trees without token ids, or with ids that the model does not know; `where` names them.
        """
        if not all(root.token_ids for root in roots):
            raise UserError(f"{where}: its steps have no token ids (a file of another system); search again")
        rows = list(self._rows(roots))
        if not all(type(token) is int and 0 <= token < self.vocabulary for row in rows for token in row.tree.tokens):
            raise UserError(
                f"{where}: a token id is outside the model's vocabulary of {self.vocabulary}; name a model of its kind"
            )
        found: list[dict[str, float]] = [{} for _ in roots]
        for batch in self._batches(rows):
            for (tree, tag), value in self._compute(batch):
                found[tree][tag] = value
        return found

    def _rows(self, roots: Sequence[Node]) -> Iterator[Row]:
        """The paths of all trees, as many in a row as fit into it."""
        row = Row()
        for number, root in enumerate(roots):
            for nodes, token_ids in _paths(root):
                if row.tree.tokens and len(row.tree.tokens) + row.tree.missing(token_ids) > self.row_tokens:
                    yield row
                    row = Row()
                at = row.tree.insert(token_ids)
                length = 0
                for node in nodes:
                    length += len(node.token_ids)
                    row.ends[number, node.tag] = at[length - 1]
        yield row

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        batch: list[Row] = []
        for row in sorted(rows, key=lambda row: len(row.tree.tokens)):
            if batch and (len(batch) + 1) * len(row.tree.tokens) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        yield batch

    def _compute(self, rows: Sequence[Row]) -> Iterator[tuple[tuple[int, str], float]]:
        batch = blank_batch([row.tree for row in rows]).to(self.device)
        length = batch.token_ids.shape[1]
        places = [(key, number * length + at) for number, row in enumerate(rows) for key, at in row.ends.items()]
        hidden = self.module.hidden(batch)  # [B · T, hidden]
        index = torch.tensor([at for _, at in places], device=self.device)
        values = self.module.values(hidden[index]).tolist()
        return zip([key for key, _ in places], values, strict=True)


def _paths(root: Node) -> Iterator[tuple[list[Node], list[int]]]:
    """(nodes, token ids) from the root to each leaf, depth first."""
    for leaf in walk(root):
        if not leaf.children:
            nodes = [root, *leaf.path()]
            yield nodes, [token for node in nodes for token in node.token_ids]

"""Values of every node of searched trees in one pass: rerank sampled solutions (OVM), rank siblings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mcts.errors import UserError
from mcts.trees.node import Node, walk
from models.training.data import Tree, blank_batch
from models.training.folders import load_policy_value


class Scorer:
    """The value head of a model folder on finished trees. Raises UserError for a folder without a model."""

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        self.module = load_policy_value(folder).eval().to(device)
        self.device = torch.device(device)

    @torch.inference_mode()
    def values(self, roots: Sequence[Node], where: str = "the tree") -> list[dict[str, float]]:
        """Tag → value in (-1, 1) for every node of some trees of one question, whose steps carry token ids.

        The trees are computed as one, so what they have in common is computed once. Raises UserError for trees without
        token ids, or with ids that the model does not know; `where` names them.
        """
        if not all(root.token_ids for root in roots):
            raise UserError(f"{where}: its steps have no token ids (a file of another system); search again")
        tree = Tree()
        ends = [_insert(tree, root) for root in roots]
        size = self.module.causal.config.get_text_config().vocab_size
        if not all(type(token) is int and 0 <= token < size for token in tree.tokens):
            raise UserError(
                f"{where}: a token id is outside the model's vocabulary of {size}; name a model of its kind"
            )
        hidden = self.module.hidden(blank_batch([tree]).to(self.device))
        values = self.module.values(hidden).tolist()
        return [{tag: values[at] for tag, at in own.items()} for own in ends]


def _insert(tree: Tree, root: Node) -> dict[str, int]:
    """Puts all paths of a searched tree into `tree`; tag → where the node ends."""
    paths: dict[str, list[int]] = {}
    ends: dict[str, int] = {}
    for node in walk(root):
        before = paths[node.parent.tag] if node.parent is not None else []
        paths[node.tag] = before + list(node.token_ids)
        if paths[node.tag]:
            ends[node.tag] = tree.insert(paths[node.tag])[-1]
    return ends

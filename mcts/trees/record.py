"""Trees in their published file form: tag → node, breadth first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcts.jsonl import uninterrupted
from mcts.trees.node import FAILURES, NOT_EVALUATED, Node, walk

_HUGE = 1e150  # sums and products of such numbers stay finite


class TreeError(ValueError):
    """A saved tree that is not in the published format; the message names the tag."""


def _node_record(node: Node, searched: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": node.text,
        "extra_info": node.extra_info,
        "action": node.action,
        "action_input": node.action_input,
        "final_answer": node.final_answer,
        "value": int(NOT_EVALUATED) if node.value == NOT_EVALUATED else node.value,
    }
    if searched:
        record["q_value"], record["prior"], record["visit_count"] = node.q_value, node.prior, node.visit_count
        if node.born:
            record["born"] = node.born
    record["token_ids"], record["terminal"] = list(node.token_ids), node.terminal
    reason = "" if node.reason == FAILURES.get(node.final_answer) else node.reason  # the message says it
    for key, value in ("logprob", node.logprob), ("reward", node.reward), ("finish", node.finish), ("reason", reason):
        if value:  # nothing is said about what is not known, and a sum of nothing is 0
            record[key] = value
    if node.duplicates:
        record["duplicates"] = node.duplicates
    return record


def to_record(root: Node, *, searched: bool) -> dict[str, Any]:
    """The published form of a tree. `searched` adds q_value, prior and visit_count (MCTS)."""
    with uninterrupted():
        return {node.tag: _node_record(node, searched) for node in walk(root)}


def read_text(record: Mapping[str, Any], key: str) -> str:
    """A text of a saved node, "" where it is null or missing. Raises TreeError."""
    value = record.get(key)
    if type(value) is not str and value is not None:
        raise TreeError(f"{key}: expected a text, found {value!r:.40}")
    return value or ""


def read_number(record: Mapping[str, Any], key: str, default: float | None) -> Any:
    """A number of a saved node, `default` where it is missing. Raises TreeError, also for what is not finite."""
    value = record.get(key, default)
    if value is not default and (type(value) not in (float, int) or not -_HUGE < value < _HUGE):
        raise TreeError(f"{key}: expected a number, found {value!s:.40}")
    return value


def _read_node(tag: str, record: Any) -> Node:
    if not isinstance(record, Mapping):
        raise TreeError(f"node {tag}: expected an object, found {type(record).__name__}")
    try:
        if record.get("text") is None:
            raise TreeError("field 'text' is missing")
        visits, answer = read_number(record, "visit_count", 0), read_text(record, "final_answer")
        token_ids, terminal = record.get("token_ids", ()), record.get("terminal", bool(answer))
        if visits < 0 or visits != int(visits):
            raise TreeError(f"visit_count: expected a count, found {visits!r}")
        if not isinstance(token_ids, list | tuple) or not set(map(type, token_ids)) <= {int}:
            raise TreeError("token_ids: expected a list of whole numbers")
        if not isinstance(terminal, bool):
            raise TreeError(f"terminal: expected true or false, found {terminal!r:.40}")
        return Node(
            tag=tag,
            depth=tag.count("."),
            text=read_text(record, "text"),
            extra_info=read_text(record, "extra_info"),
            action=read_text(record, "action"),
            action_input=read_text(record, "action_input"),
            final_answer=answer,
            value=float(read_number(record, "value", NOT_EVALUATED)),
            prior=float(read_number(record, "prior", 1.0)),
            visit_count=int(visits),
            value_sum=float(read_number(record, "q_value", 0.0)) * visits,
            terminal=terminal,
            reward=read_number(record, "reward", None),
            logprob=read_number(record, "logprob", None),
            finish=read_text(record, "finish"),
            reason=read_text(record, "reason") or FAILURES.get(answer, ""),
            token_ids=tuple(token_ids),
            duplicates=int(read_number(record, "duplicates", 0)),
            born=int(read_number(record, "born", 0)),
        )
    except TreeError as error:
        raise TreeError(f"node {tag}: {error}") from None


def from_record(record: Any) -> Node:
    """Reads a saved tree, the published form or ours, in any order of tags.

    Raises TreeError where a tag has no parent or a field is missing or of the wrong type.
    """
    if not isinstance(record, Mapping) or "0" not in record:
        raise TreeError('no root: expected an object with a node "0"')
    with uninterrupted():
        nodes = {tag: _read_node(tag, node) for tag, node in record.items() if tag != "solutions"}
        for tag, node in nodes.items():
            if tag != "0":
                _adopt(nodes, node)
        for node in nodes.values():
            node.children.sort(key=lambda child: child.index)
    return nodes["0"]


def _adopt(nodes: Mapping[str, Node], node: Node) -> None:
    """Hangs a node under its parent."""
    above, _, last = node.tag.rpartition(".")
    if not last.isdecimal() or len(last) > 9 or str(int(last)) != last:  # 0.01 would be a second 0.1
        raise TreeError(f"tag {node.tag!r}: expected numbers joined by dots, such as 0.2.1")
    if above not in nodes:
        raise TreeError(f"node {node.tag}: its parent {above!r} is not in the tree")
    node.parent = nodes[above]
    node.parent.children.append(node)

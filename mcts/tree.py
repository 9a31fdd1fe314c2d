"""Nodes, trees and their published file form (tag → node, breadth first)."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mcts.interpreter import State
from mcts.model import Context

NOT_EVALUATED = -100.0
_HUGE = 1e150  # sums and products of such numbers stay finite
UNPARSABLE = "Fail to generate parsable text for next step."
TOO_DEEP = "Fail to sove the problem within limited steps."  # the published spelling: files must stay comparable
TOO_MANY_ERRORS = "Too many consecutive steps have code errors."
TOO_MANY_CALLS = "Reach max function call limit."
FAILURES = frozenset({UNPARSABLE, TOO_DEEP, TOO_MANY_ERRORS, TOO_MANY_CALLS, TOO_DEEP.replace("sove", "solve")})


class TreeError(ValueError):
    """A saved tree that is not in the published format; the message names the tag."""


@dataclass(slots=True, eq=False)
class Node:
    """A partial solution: its parent's, plus one step.

    value: the value head's estimate in (-1, 1), NOT_EVALUATED before it is known.
    prior: exp(log-probability / tokens) of the step. Q = value_sum / visit_count.
    logprob: sum over the step's sampled tokens. token_ids: what the step adds to the prompt, observation included.
    closed: no leaf below this node can be expanded any more.
    unobserved: backups that simulations in flight through this node still owe it. busy: every leaf below this node
        that could be expanded is in flight.
    """

    tag: str = "0"
    parent: Node | None = None
    depth: int = 0
    text: str = ""
    extra_info: str = ""
    action: str = ""
    action_input: str = ""
    final_answer: str = ""
    value: float = NOT_EVALUATED
    prior: float = 1.0
    visit_count: int = 0
    value_sum: float = 0.0
    children: list[Node] = field(default_factory=list)
    terminal: bool = False
    closed: bool = False
    unobserved: int = 0
    busy: bool = False
    reward: float | None = None
    logprob: float | None = None
    finish: str = ""
    token_ids: tuple[int, ...] = ()
    duplicates: int = 0
    errors: int = 0  # consecutive code errors up to and including this step
    context: Context | None = None
    state: State | None = None

    @property
    def index(self) -> int:
        """Which child of its parent the node is: the last number of its tag."""
        return int(self.tag.rpartition(".")[2])

    @property
    def q_value(self) -> float:
        return self.value_sum / self.visit_count if self.visit_count else 0.0

    @property
    def answered(self) -> bool:
        """A terminal node that holds an answer, not one of the failure messages."""
        return bool(self.final_answer) and self.final_answer not in FAILURES

    @property
    def failed(self) -> bool:
        return self.terminal and not self.answered

    def path(self) -> list[Node]:
        """The steps from the root's child down to this node."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def close(self) -> None:
        """Marks the node as exhausted, and every ancestor whose children are all exhausted.
        An exhausted node is not built upon, so it lets go of what the engine and the interpreter keep for it."""
        node: Node | None = self
        while node is not None and all(child.closed for child in node.children):
            node.closed = True
            node.release()
            node = node.parent

    def release(self) -> None:
        """Lets go of the key/value entries and the interpreter state: the node will not be built upon."""
        self.context = None
        self.state = None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No garbage collection meanwhile: where millions of objects are made and kept, it would walk them again and again
    and find nothing (half the time of reading a tree of 10⁵ nodes)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def walk(root: Node) -> Iterator[Node]:
    """All nodes, breadth first."""
    queue = deque([root])
    while queue:
        node = queue.popleft()
        yield node
        queue.extend(node.children)


def solution_text(node: Node, step_delim: str) -> str:
    """The solution that ends in `node`, as a person reads it."""
    return step_delim.join(step.text for step in node.path())


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
    record["token_ids"], record["terminal"] = list(node.token_ids), node.terminal
    for key, value in ("logprob", node.logprob), ("reward", node.reward), ("finish", node.finish):
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
            token_ids=tuple(token_ids),
            duplicates=int(read_number(record, "duplicates", 0)),
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

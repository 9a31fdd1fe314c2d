"""Nodes, trees and their published file form (tag → node, breadth first)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mcts.interpreter import State
from mcts.model import Context

NOT_EVALUATED = -100.0
UNPARSABLE = "Fail to generate parsable text for next step."
TOO_DEEP = "Fail to sove the problem within limited steps."  # the published spelling: files must stay comparable
TOO_MANY_ERRORS = "Too many consecutive steps have code errors."
TOO_MANY_CALLS = "Reach max function call limit."
FAILURES = frozenset({UNPARSABLE, TOO_DEEP, TOO_MANY_ERRORS, TOO_MANY_CALLS, TOO_DEEP.replace("sove", "solve")})


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

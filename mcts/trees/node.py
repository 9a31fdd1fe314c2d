"""A node of a search tree: a partial solution, its estimate and its statistics."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mcts.interpreter import State
from mcts.model import Context

NOT_EVALUATED = -100.0
"""The published value of a node that the value head has not judged."""

UNPARSABLE = "Fail to generate parsable text for next step."
TOO_DEEP = "Fail to sove the problem within limited steps."  # the published spelling: files must stay comparable
TOO_MANY_ERRORS = "Too many consecutive steps have code errors."
TOO_MANY_CALLS = "Reach max function call limit."
FAILURES = {
    UNPARSABLE: "unparsable",
    TOO_DEEP: "too deep",
    TOO_DEEP.replace("sove", "solve"): "too deep",
    TOO_MANY_ERRORS: "code errors",
    TOO_MANY_CALLS: "too many calls",
}
"""Published failure message, which stands where an answer would → the reason in a word or two."""

TOO_LONG = "prompt too long"  # the model's window has no room for another token
REPLAY_DIFFERS = "replay differs"  # the Python state before the step is not the one that its path shows
TRUNCATED = "truncated"  # the step was cut at `max_tokens` and cannot be read


@dataclass(slots=True, eq=False)
class Node:
    """A partial solution: its parent's, plus one step."""

    tag: str = "0"
    """The path from the root in child indices: "0" is the root, "0.2.1" child 1 of child 2 of the root."""
    parent: Node | None = None
    depth: int = 0
    """Steps from the root; the root has 0."""
    text: str = ""
    """The step as the model wrote it, with the observation of its code."""
    extra_info: str = ""
    """The root: "question: " and the question. Elsewhere empty."""
    action: str = ""
    """The tool that the step calls ("python_interpreter"), or empty."""
    action_input: str = ""
    """The code of the step."""
    final_answer: str = ""
    """The answer that ends the solution, or one of the published failure messages (`FAILURES`)."""
    value: float = NOT_EVALUATED
    """The value head's estimate in (-1, 1), NOT_EVALUATED before it is known."""
    prior: float = 1.0
    """exp(log-probability / tokens) of the step, in (0, 1]."""
    visit_count: int = 0
    """Values backed up through the node."""
    value_sum: float = 0.0
    """Their sum. Q = value_sum / visit_count."""
    children: list[Node] = field(default_factory=list)
    terminal: bool = False
    """Nothing follows: the node holds an answer or has failed."""
    closed: bool = False
    """No leaf at or below the node can be expanded any more."""
    unobserved: int = 0
    """Backups that simulations in flight through the node still owe it."""
    busy: bool = False
    """Every leaf below the node that could be expanded is in flight."""
    reward: float | None = None
    """What the search knows without the value head: a failure, or a graded answer in training. None: nothing."""
    logprob: float | None = None
    """Log-probability of the step, summed over its sampled tokens, before temperature."""
    finish: str = ""
    """How sampling ended: "stop" (a stop string), "eos" or "length" (`max_tokens`)."""
    reason: str = ""
    """Why the node ended without an answer (a value of `FAILURES`, TOO_LONG, TRUNCATED), or what is wrong with it."""
    token_ids: tuple[int, ...] = ()
    """What the step adds to the prompt, observation and delimiter included."""
    born: int = 0
    """Which expansion made the node, counted from 1 over the simulations (and a descent after them); the root has 0."""
    duplicates: int = 0
    """Further samples of the same text that this node stands for (`remove_duplicate`)."""
    errors: int = 0
    """Consecutive code errors up to and including this step."""
    context: Context | None = None
    """The prompt that ends with this step, as long as the node may be expanded."""
    state: State | None = None
    """The Python state after the step's code, as long as the node may be expanded."""

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

    def end(self, reason: str) -> None:
        """Ends the node without an answer. reason: one of the published messages (`FAILURES`), or words of its own."""
        self.terminal = True
        self.reason = FAILURES.get(reason, reason)
        if reason in FAILURES:
            self.final_answer = reason

    def walk(self) -> Iterator[Node]:
        """This node and all below it, breadth first."""
        return walk(self)

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

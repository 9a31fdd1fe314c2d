"""One expansion: samples become child nodes, code is run, answers are read. Every search mode stands on it."""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts.config import Config
from mcts.errors import UserError
from mcts.interpreter import Interpreter
from mcts.markup import PYTHON_INTERPRETER, Markup, Step, Turns, printed_answer
from mcts.model import Context, ContextTooLong, Conversation, LanguageModel, Sample, Sampling
from mcts.trees.node import (
    REPLAY_DIFFERS,
    TOO_DEEP,
    TOO_LONG,
    TOO_MANY_CALLS,
    TOO_MANY_ERRORS,
    TRUNCATED,
    UNPARSABLE,
    Node,
    solution_text,
)

Grader = Callable[[str | Sequence[str], str], Awaitable[bool | None]]
"""(accepted answers, prediction) → right, wrong, or None when it cannot be decided."""

Watcher = Callable[[Node], None]
"""Called for each new node."""


@dataclass
class Counts:
    """What a question cost, as the search sees it."""

    simulations: int = 0
    """Simulations of MCTS that were backed up."""
    descent: int = 0
    """Expansions after the budget, where it had found no answer."""
    samples: int = 0
    """Steps that were sampled."""
    tokens_sampled: int = 0
    evaluations: int = 0
    """Values asked for outside of an expansion."""
    snippets: int = 0
    """Code runs."""
    code_seconds: float = 0.0
    """Wall time of the code itself."""
    grading_seconds: float = 0.0
    """Wall time until answers were graded, for rewards and votes."""

    def timed(self, grader: Grader | None) -> Grader | None:
        """`grader`, with its time counted."""
        if grader is None:
            return None

        async def judge(answers: str | Sequence[str], prediction: str) -> bool | None:
            started = time.monotonic()
            try:
                return await grader(answers, prediction)
            finally:
                self.grading_seconds += time.monotonic() - started

        return judge


def finite(value: float) -> float:
    """Raises UserError for a value that is none: the weights of the model or of its head are broken."""
    if not math.isfinite(value):
        raise UserError(f"the model gives the value {value}: its weights or its value head hold NaN or infinity")
    return value


def common_prefix(first: str, second: str) -> int:
    """How many characters two texts begin with in common, by bisection: comparing slices is cheap, characters not."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


def encode_chat(model: LanguageModel, chat: Conversation) -> tuple[int, ...]:
    """Raises UserError for a model that has no chat template."""
    encode = getattr(model, "encode_chat", None)
    if encode is None:
        raise UserError("this model takes no chats: its engine has no chat template; use another prompt_wrap")
    return tuple(encode(chat))


def continuation(
    model: LanguageModel, parent: Context, sample: Sample, written: str, turn: Conversation | None = None
) -> tuple[tuple[int, ...], Context]:
    """The prompt that continues `parent` with the step `written` and the turns behind it, and the token ids that this
    adds.

    Keeps the sampled tokens as far as they spell the beginning of `written` (the model goes on from what it
    really wrote, and its key/value entries stay good) and encodes only the rest: the stop string that the engine
    cut off, the observation, the delimiter.
    """
    ends = sample.ends or (len(sample.text),) * len(sample.token_ids)
    kept = bisect_right(ends, common_prefix(sample.text + sample.stop + sample.overflow, written))
    spelled = ends[kept - 1] if kept else 0
    rest = model.encode(written[spelled:]) + (() if turn is None else encode_chat(model, turn))
    if kept == len(sample.token_ids) and sample.context is not None:
        return sample.token_ids + rest, Context(sample.context, rest)
    token_ids = sample.token_ids[:kept] + rest
    return token_ids, Context(parent, token_ids)


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Awaits all at once; a task costs more host time than a short piece of work, so one alone gets none."""
    if len(work) == 1:
        await work[0]
    elif work:
        await asyncio.gather(*work)


@dataclass
class Expander:
    """Grows a tree for one question.

    key: (seed, question index, run), the origin of all noise in the tree; the tag of a node completes it.
    watcher: called for each new node, once its step is read and its code has run.
    """

    config: Config
    model: LanguageModel
    markup: Markup
    interpreter: Interpreter
    key: tuple[int | str, ...] = ()
    watcher: Watcher | None = None
    counts: Counts = field(default_factory=Counts)

    def prompt(self, question: str) -> Context:
        """The prompt of a question before its first step."""
        prompt = self.markup.prompt(question)
        if isinstance(prompt, Conversation):
            return Context(None, encode_chat(self.model, prompt))
        encode = getattr(self.model, "encode_prompt", self.model.encode)
        return Context(None, tuple(encode(prompt)))

    def root(self, question: str, prompt: Context) -> Node:
        """The root of a new tree on `prompt`, which several trees of one question may share."""
        return Node(extra_info=f"question: {question}", token_ids=prompt.token_ids, context=prompt)

    async def expand(self, node: Node, n: int) -> float | None:
        """Samples `n` next steps of `node`, makes them its children and returns the value of `node`.

        Raises ContextTooLong where the model's window is full.
        """
        value, children = await self.grow(node, n)
        self.attach(node, children)
        return value

    def attach(self, node: Node, children: list[Node]) -> None:
        """Makes what `grow` gave the children of `node`."""
        node.children = children
        for child in children:
            child.born = self.counts.simulations + self.counts.descent + 1
        if self.watcher is not None:
            for child in children:
                self.watcher(child)

    async def grow(self, node: Node, n: int) -> tuple[float | None, list[Node]]:
        """The value of `node` and new steps, whole but not in the tree yet. Raises ContextTooLong."""
        assert node.context is not None
        config = self.config
        stop, max_tokens = self._limits(node)
        params = Sampling(config.temperature, config.top_p, config.top_k, max_tokens, stop, (*self.key, node.tag))
        expansion = await self.model.sample(node.context, n, params)
        self.counts.samples += len(expansion.samples)
        self.counts.tokens_sampled += sum(len(sample.token_ids) for sample in expansion.samples)
        before = solution_text(node, self.markup.step_delim)
        steps = [
            (child, sample, self.markup.read(sample.text, before, sample.finish, sample.stop))
            for child, sample in self._distinct(node, expansion.samples)
        ]
        if node.state is not None:  # it is expanded once
            node.state.announce(sum(step.parsable and bool(step.code) for _, _, step in steps))
        await _together([self._finish(child, sample, step, node.context) for child, sample, step in steps])
        value = None if expansion.value is None else finite(expansion.value)
        return value, [child for child, _, _ in steps]

    def _limits(self, node: Node) -> tuple[tuple[str, ...], int]:
        """The stop strings and the most tokens of a step that follows `node`."""
        config, stop = self.config, None
        max_tokens = config.max_tokens
        if isinstance(self.markup, Turns):
            spent = sum(len(step.token_ids) for step in node.path())
            stop, max_tokens = self.markup.limits(solution_text(node, self.markup.step_delim), spent, max_tokens)
        if stop is None:
            stop = self.markup.stop if config.stop is None else config.stop
        return stop, max_tokens

    def _distinct(self, node: Node, samples: Sequence[Sample]) -> list[tuple[Node, Sample]]:
        """A new child for each sample, or with `remove_duplicate` for each distinct text (the first one's)."""
        steps: list[tuple[Node, Sample]] = []
        first: dict[str, Node] = {}
        for index, sample in enumerate(samples):
            text = sample.text.strip()
            if self.config.remove_duplicate and text in first:
                first[text].duplicates += 1
                continue
            prior = math.exp(sample.logprob / max(1, len(sample.token_ids)))
            child = Node(f"{node.tag}.{index}", node, node.depth + 1, prior=prior, logprob=sample.logprob)
            child.finish = sample.finish
            first[text] = child
            steps.append((child, sample))
        return steps

    async def _finish(self, child: Node, sample: Sample, step: Step, parent: Context) -> None:
        """Runs the code of a step and decides whether the child is terminal."""
        child.text = step.text
        observation = ""
        if not step.parsable:
            child.end(UNPARSABLE)
            if sample.finish == "length":
                child.reason = TRUNCATED
        elif step.code:
            observation = await self._run(child, step)
        elif step.final_answer:
            child.final_answer = step.final_answer
            child.terminal = True
        if not child.terminal and child.depth > self.config.max_depth:
            child.end(TOO_DEEP)
        if step.parsable:
            written, turn = self._going_on(child, step, observation)
            child.token_ids, child.context = continuation(self.model, parent, sample, written, turn)
        else:
            child.token_ids = sample.token_ids
        if child.failed:
            child.release()

    def _going_on(self, child: Node, step: Step, observation: str) -> tuple[str, Conversation | None]:
        """(the step's text in the prompt, the turns behind it)."""
        delimiter = self.markup.step_delim
        if step.added:
            turn = Conversation((), follows=True, opening=step.added + delimiter)
            return step.text.removesuffix(step.added), turn
        if child.action and not child.terminal and isinstance(self.markup, Turns):
            reply = self.markup.reply(observation)
            return (step.text, reply) if reply is not None else (child.text + delimiter, None)
        return child.text + delimiter, None

    async def _run(self, child: Node, step: Step) -> str:
        """Runs the code of a step and returns the observation, "" where it is not run."""
        assert child.parent is not None
        limit = self.config.max_tool_calls
        if limit is not None and sum(bool(node.action) for node in child.parent.path()) >= limit:
            child.end(TOO_MANY_CALLS)
            return ""
        child.action, child.action_input = PYTHON_INTERPRETER, step.code
        execution = await self.interpreter.run(child.parent.state, step.code)
        self.counts.snippets += 1
        self.counts.code_seconds += execution.seconds
        child.text = self.markup.observed(step, execution.observation)
        child.state = execution.state if self.config.code_state == "carried" else None
        if execution.replay_differs:
            child.reason = REPLAY_DIFFERS
        if execution.replay_differs and execution.failed:
            child.end(REPLAY_DIFFERS)
        elif step.answers and not execution.failed:
            child.final_answer = printed_answer(execution.observation)
            child.terminal = True
            if not child.final_answer:
                child.end(UNPARSABLE)
        elif step.answers:
            child.end(TOO_MANY_ERRORS)
        elif "Error" in execution.observation if self.config.published_rules else execution.failed:
            child.errors = child.parent.errors + 1
            if child.errors > self.config.errors_threshold:
                child.end(TOO_MANY_ERRORS)
        return execution.observation

    async def evaluate(self, nodes: Sequence[Node]) -> None:
        """Asks the value head for every node of `nodes`. One that no longer fits the window ends there; an answer
        stays without a value."""
        self.counts.evaluations += len(nodes)
        await _together([self._evaluate(node) for node in nodes])

    async def _evaluate(self, node: Node) -> None:
        assert node.context is not None
        try:
            node.value = finite(await self.model.evaluate(node.context))
        except ContextTooLong:
            if not node.answered:
                node.value = self.config.negative_reward
                node.end(TOO_LONG)

"""Solutions of a deliberately weak solver, from which the first policy is learned.

On chains it misreads uncommon words more often than not, guesses lost signs and goes on whatever its check prints: what
is better is to be learned from searched paths. On guess and check the solver mostly moves in the right
direction, but often by one and seldom by the right amount, guesses afresh now and then, sometimes stops early and
always at its limit of tries. Its commonest move, by one, is a poor one: a policy that always does the likeliest thing
gets there late. What is left for search is to tell good tries from bad ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.tiny.chains import Entry
from models.tiny.problems import LARGEST, SMALLEST, Problem

TRIES = 6

PROMPT = "<question> {question} </question>\n"
CODE_STEP = "<step>\n<p>\n{thought}\n</p>\n<code>\n```python\n{code}\n```\n</code>"
OBSERVATION = "\n<output>\n{observation}\n</output>\n</step>\n"
FINAL_STEP = "<step>\n<p>\n{thought}\n</p>\n<p>\nFinal Answer: {answer}\n</p>\n</step>"


@dataclass(frozen=True)
class Solution:
    """A prompt and the texts that follow it in turn: (by the policy, by the environment)."""

    prompt: str
    steps: tuple[tuple[str, str], ...]
    answer: int


@dataclass(frozen=True)
class Habits:
    """How weak the solver is, as probabilities."""

    fresh: float = 0.10
    astray: float = 0.10
    timid: float = 0.25  # a move by one
    aimed: float = 0.45  # a move by about the right distance; what is left: by any
    stop_early: float = 0.03
    slip: float = 0.3  # a wrong operation in plain arithmetic
    plain: float = 0.975  # the right reading of an entry with a common word
    hard: float = 0.45  # with an uncommon one: the wrong reading is the commoner
    plus: float = 0.6  # an entry without a sign is taken for an addition


def next_guess(rng: random.Random, guess: int, value: Any, root: int, habits: Habits) -> tuple[str, int]:
    """A thought and the next value to try after `guess` gave f = `value`."""
    if not isinstance(value, int) or rng.random() < habits.fresh:
        return "Guess again.", rng.randint(SMALLEST, LARGEST)
    too_big = (value > 0) != (rng.random() < habits.astray)
    habit = rng.random()
    if habit < habits.timid:
        distance = 1
    elif habit < habits.timid + habits.aimed:
        distance = max(1, round(abs(guess - root) * rng.uniform(0.4, 1.6)))
    else:
        distance = round(math.exp(rng.uniform(0, math.log(20))))
    guess += -distance if too_big else distance
    return ("Too big." if too_big else "Too small."), min(LARGEST, max(SMALLEST, guess))


def guess_and_check(problem: Problem, rng: random.Random, habits: Habits) -> Solution:
    f: Callable[[int], Any] = eval(f"lambda x: {problem.check}")  # our own generator's text
    thought, guess = "Let f(x) be the error in percent.", rng.randint(SMALLEST, LARGEST)
    code = f"f=lambda x:{problem.check}\nprint(f({guess}))"
    steps = []
    for _ in range(TRIES):
        value = f(guess)
        steps.append((CODE_STEP.format(thought=thought, code=code), OBSERVATION.format(observation=value)))
        if value in (0, (0, 0)) or rng.random() < habits.stop_early:
            break
        thought, following = next_guess(rng, guess, value, problem.answer, habits)
        code = f"print(f({following}))"
        guess = following
    steps.append((FINAL_STEP.format(thought=f"So x={guess}.", answer=guess), "\n"))
    return Solution(PROMPT.format(question=problem.question), tuple(steps), guess)


def plain_arithmetic(problem: Problem, rng: random.Random, habits: Habits) -> Solution:
    code = problem.check
    if rng.random() < habits.slip:
        code = code.replace("+", "-") if "+" in code else code.replace("-", "+")
    answer = int(eval(code))  # our own generator's text
    steps = (
        (CODE_STEP.format(thought="Count.", code=f"print({code})"), OBSERVATION.format(observation=answer)),
        (FINAL_STEP.format(thought="Counted.", answer=answer), "\n"),
    )
    return Solution(PROMPT.format(question=problem.question), steps, answer)


def read_entry(entry: Entry, rng: random.Random, habits: Habits) -> str:
    """The code of what the solver takes an entry for. It does not look at the control."""
    if entry.kind == "lost":
        taken = "+=" if rng.random() < habits.plus else "-="
        return entry.code if taken in entry.code else entry.misread
    likely = habits.plain if entry.kind == "plain" else habits.hard
    return entry.code if rng.random() < likely else entry.misread


def follow_chain(problem: Problem, rng: random.Random, habits: Habits) -> Solution:
    """Every step prints how far s is from its control, and the next one goes on regardless."""
    assert problem.chain is not None
    chain, state = problem.chain, {"s": problem.chain.start}
    steps = [printing("Start.", f"s={chain.start}\nprint(s)", chain.start)]
    for at, entry in enumerate(chain.entries):
        reading = read_entry(entry, rng, habits)
        exec(reading, state)  # our own generator's text
        check = f"{reading}\nprint((s-{entry.control})%{chain.modulus})"
        steps.append(printing(entry.quoted(at), check, (state["s"] - entry.control) % chain.modulus))
    steps.append(printing("All read.", "print(s)", state["s"]))
    steps.append((FINAL_STEP.format(thought="Done.", answer=state["s"]), "\n"))
    return Solution(PROMPT.format(question=problem.question), tuple(steps), state["s"])


def printing(thought: str, code: str, printed: int) -> tuple[str, str]:
    return CODE_STEP.format(thought=thought, code=code), OBSERVATION.format(observation=printed)


def demonstrate(problem: Problem, rng: random.Random, habits: Habits | None = None) -> Solution:
    """One weak attempt at a problem."""
    if problem.chain is not None:
        return follow_chain(problem, rng, habits or Habits())
    solve = plain_arithmetic if problem.family == "shop" else guess_and_check
    return solve(problem, rng, habits or Habits())

"""A scripted policy and value without latency, and an interpreter that runs nothing: what is left is the search."""

from __future__ import annotations

import random
from typing import Any

from mcts.config import Config
from mcts.interpreter import Execution, State
from mcts.markup import make_markup
from mcts.model import Context, Expansion, Sample, Sampling
from mcts.search.driver import Solver

STOP = "\n</code>"
KEYS: dict[str, Any] = {
    "mode": "mcts",
    "prompt_wrap": "react_sft",
    "result_unwrap": "react_sft",
    "step_delim": "\n",
    "errors_threshold": 3,
    "n_generate_sample": 5,
    "need_value_func": True,
    "c_puct": 1.25,
    "max_total_time": 1e6,
    "max_depth": 1000,
    "descend": False,  # a thousand levels deep, where simulations are counted
}


def code_step(code: str) -> str:
    """A step as it is sampled, up to its stop string."""
    return f"<step>\n<p>\nWe compute the next quantity.\n</p>\n<code>\n```python\n{code}\n```"


def sample(text: str, logprob: float, characters: int = 4) -> Sample:
    """A sample whose tokens have so many characters each, the stop string included, as an engine returns it."""
    length = len(text) + len(STOP)
    ends = (*range(characters, length, characters), length)
    return Sample(tuple(range(len(ends))), text, logprob, "stop", STOP, "", ends)


class Instant:
    """`LanguageModel` that answers at once: five code steps of about 25 tokens and an estimate drawn from the key."""

    def __init__(self) -> None:
        self._samples = tuple(sample(code_step(f"x = {i} * 17\nprint(x)"), -3.0 - 2 * i) for i in range(5))
        self._random = random.Random(0)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(range(1 + len(text) // 4))

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        return Expansion(self._random.uniform(-1, 1), self._samples[:n])

    async def evaluate(self, context: Context) -> float:
        return self._random.uniform(-1, 1)


class NoCode:
    """`Interpreter` that runs nothing."""

    async def run(self, state: State | None, code: str) -> Execution:
        return Execution("68", None, 0.0, False)


def solver(model: Any, interpreter: Any, **keys: object) -> Solver:
    config = Config.model_validate(KEYS | keys)
    return Solver(config, model, make_markup("react_sft", "\n"), interpreter, None, 0, {"fingerprint": "bench"})


# Snippets {x} = …, built on what {earlier} names, with two numbers drawn.
ARITHMETIC = "{x} = {earlier}{a}\nprint({x})"
SYMPY = (
    "from sympy import expand, solve, symbols\nt = symbols('t')\n"
    "{x} = {earlier}sum(solve(expand((t - {a}) * (t + {b})), t))\nprint({x})"
)


class Scripted:
    """`LanguageModel` without latency that is a pure function of the prompt's text, so that another schedule of the
    same search sees the same steps and values. A snippet builds on variables of earlier ones."""

    def __init__(self, snippet: str = ARITHMETIC) -> None:
        self._snippet = snippet
        self._texts: list[str] = []

    def step(self, prompt: str, index: int) -> tuple[str, float]:
        """The text of sample `index` and its log-probability."""
        drawn = random.Random(f"{index} {prompt}")
        depth, logprob = prompt.count("</step>"), -drawn.uniform(2, 12)
        if drawn.random() < 0.05 * depth:
            return f"<step>\n<p>\nDone.\n</p>\n<p>\nFinal Answer: ${drawn.choice('789')}$\n</p>", logprob
        earlier = f"x{depth - 1} + " if depth else ""
        a, b = drawn.randrange(99), drawn.randrange(1, 99)
        return code_step(self._snippet.format(x=f"x{depth}", earlier=earlier, a=a, b=b)), logprob

    @staticmethod
    def value(prompt: str) -> float:
        return random.Random(prompt).uniform(-1, 1)

    def encode(self, text: str) -> tuple[int, ...]:
        self._texts.append(text)
        return (len(self._texts) - 1,)

    def text(self, context: Context) -> str:
        return "".join(self._texts[token] for token in context.all_token_ids())

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        prompt = self.text(context)
        drawn = [self.step(prompt, index) for index in range(n)]
        return Expansion(
            self.value(prompt), tuple(Sample(self.encode(text), text, logprob, "stop") for text, logprob in drawn)
        )

    async def evaluate(self, context: Context) -> float:
        return self.value(self.text(context))

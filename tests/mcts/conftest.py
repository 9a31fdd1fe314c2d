"""A scripted language model for tests of the search: it says what the test tells it to say."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest_asyncio

from mcts.config import Config
from mcts.interpreter import ForkInterpreter
from mcts.markup import make_markup
from mcts.model import Context, ContextTooLong, Expansion, Sample, Sampling
from mcts.question import Question
from mcts.search.driver import Solver

Say = Callable[[str, int], str]
Value = Callable[[str], float]

SFT = {"prompt_wrap": "react_sft", "result_unwrap": "react_sft", "step_delim": "\n", "errors_threshold": 3}


def code_step(code: str) -> str:
    return f"<step>\n<p>\nCompute.\n</p>\n<code>\n```python\n{code}\n```\n"


def final_step(answer: str) -> str:
    return f"<step>\n<p>\nDone.\n</p>\n<p>\nFinal Answer: ${answer}$\n</p>\n"


class ScriptedModel:
    """`LanguageModel` from two functions of the prompt's text; one token a character. window: in characters."""

    def __init__(self, say: Say, value: Value = lambda prompt: 0.0, window: int = 1 << 30) -> None:
        self.say, self.value, self.window = say, value, window
        self.prompts: list[str] = []
        self.keys: list[tuple[int | str, ...]] = []

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def _read(self, context: Context) -> str:
        if context.length > self.window:
            raise ContextTooLong(f"{context.length} > {self.window}")
        return "".join(map(chr, context.all_token_ids()))

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        prompt = self._read(context)
        self.prompts.append(prompt)
        self.keys.append(params.key)
        texts = [self.say(prompt, index) for index in range(n)]
        samples = [Sample(self.encode(text), text, -0.1 * len(text), "stop") for text in texts]
        return Expansion(self.value(prompt), tuple(samples))

    async def evaluate(self, context: Context) -> float:
        return self.value(self._read(context))


class RandomModel(ScriptedModel):
    """Steps and values drawn from a hash of (seed, prompt, sample): code, answers, errors, and now and then junk."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._draw, lambda prompt: random.Random(f"{seed} {prompt}").uniform(-1, 1))
        self.seed = seed

    def _draw(self, prompt: str, index: int) -> str:
        drawn = random.Random(f"{self.seed} {index} {prompt}")
        kind = drawn.random() - 0.1 * prompt.count("</step>")
        if kind < 0.05:
            return "no markup at all"
        if kind < 0.3:
            return final_step(drawn.choice(["7", "8", "undecidable"]))
        return code_step(drawn.choice(["1 / 0", f"print({drawn.randrange(99)})"]))


async def exact(answers: Sequence[str], prediction: str) -> bool | None:
    return None if prediction == "undecidable" else prediction in answers


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def interpreter() -> AsyncIterator[ForkInterpreter]:
    async with ForkInterpreter(preload=()) as running:
        yield running


def make_solver(model: ScriptedModel, interpreter: ForkInterpreter, seed: int = 0, **keys: object) -> Solver:
    config = Config.model_validate(SFT | keys)
    markup = make_markup(config.prompt_wrap, config.step_delim, published=config.published_rules)
    return Solver(config, model, markup, interpreter, exact, seed)


def ask(text: str = "What is it?", index: int = 0, **item: object) -> Question:
    return Question(index, {"question": text, **item}, f"test:{index}")


def without_seconds(meta: dict[str, Any]) -> dict[str, Any]:
    """What stays the same when a question is searched again."""
    return {key: value for key, value in meta.items() if not key.endswith("_seconds")}

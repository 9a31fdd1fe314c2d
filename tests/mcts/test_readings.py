"""What the markups make of texts as models really write them: code runs or ends the step, drafts and cut texts are no
answers. The published rules stay behind a switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from eval.grading.extract import extract
from mcts.config import Config
from mcts.interpreter import ForkInterpreter
from mcts.markup import make_markup
from mcts.model import Context, Expansion, Sampling
from mcts.search.driver import Solver
from tests.mcts.conftest import ScriptedModel, ask, exact

RUN = "print(6 * 7)"


def make(name: str, published: bool = False):
    delim = {"cot": "\n\n", "react": "\n\n"}.get(name, "\n")
    return make_markup(name, delim, train_prompt=name != "react", extract=extract, published=published)


TORA, PAL, COT, SFT, REACT = map(make, ("tora", "pal", "cot", "react_sft", "react"))


# --- code runs, whatever its fence says


@pytest.mark.parametrize(
    "text",
    [
        f"I expect 40.\n```{label}\n{RUN}\n```"
        for label in (
            "python", "Python3", "PYTHON", " python", "py", "", "{.python}", "ipython", 'python title="a.py"',
            "tool_code", "javascript", "text", "Python code", "python3.11",
        )
    ]
    + [
        f"I expect 40.\n~~~python\n{RUN}\n~~~",
        f"1. I expect 40.\n   ```python\n   {RUN}\n   ```\n2. then",
        f"```python\n{RUN}\n```\nThis gives 40.",
        f"```python\n{RUN}\n```\nThe answer is $\\boxed{{40}}$.",
        f"```python\n{RUN}\n```\n```output\n40\n```\nThe answer is 40.",
        f"<think>```python\n1 / 0\n```</think>\n```python\n{RUN}\n```",
        f'{{"name": "python", "arguments": {{"code": "{RUN}"}}}}',
        f'I call {{"tool": "python_interpreter", "input": "{RUN}"}} and expect 40.',
        f'<tool_call>\n{{"name": "code_interpreter", "arguments": {{"code": "{RUN}"}}}}\n</tool_call>',
        f'```json\n{{"name": "python", "arguments": "{{\\"code\\": \\"{RUN}\\"}}"}}\n```',
        f'[{{"type": "function", "function": {{"name": "execute_python", "parameters": {{"script": "{RUN}"}}}}}}]',
        f"<code>\n{RUN}\n</code>",
        f"<|python_tag|>{RUN}",
    ],
)  # fmt: skip
def test_code_runs_and_no_number_beside_it_is_an_answer(text: str) -> None:
    step = TORA.read(text)
    assert step.code.strip() == RUN and not step.final_answer
    assert "40" not in step.text[step.text.rindex("print") :]  # what stands behind the code was a guess


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("I compute 6 * 7 = 42.\n", "```output"),
        ("The answer is $\\boxed{42}$.\n", "```output"),
        ("```ruby\nputs 6 * 7\n```\nThe answer is 42.", ""),
        ("```python\nprint(6 *", ""),
        ("It is $\\boxed{42}$.\n```python\nprint(6 *", ""),
        ('{"name": "calculator", "arguments": {"expression": "6 * 7"}}', ""),
        ('I call {"name": "calculator", "arguments": {"expression": "6 * 7"}}: the answer is 42.', ""),
        ("{'name': 'python', 'arguments': {'code': 'print(6*7)'}} The answer is 42.", ""),
        ("```output\n42\n```", ""),
        ("```python\n```\nThe answer is 42.", ""),
        ("", ""),
    ],
)
def test_what_cannot_be_run_is_unparsable(text: str, stop: str) -> None:
    assert not TORA.read(text, stop=stop).parsable


def test_a_block_that_is_left_open_where_the_output_is_asked_for_runs() -> None:
    assert TORA.read(f"```python\n{RUN}\n", stop="```output").code == f"{RUN}\n"
    assert PAL.read(f"{RUN}\n", stop="```output").code.startswith(RUN)


def test_a_block_that_shows_something_runs_not() -> None:
    for text in ("```\n1 2\n3 4\n```\nThe answer is $9$.", "```latex\nx = 9\n```\nThe answer is 9."):
        assert TORA.read(text).final_answer.strip("$") == "9"


@pytest.mark.parametrize(
    "text",
    [
        "<code>\n```python\nx = 6\n```\nand\n```python\nprint(x * 7)\n```\n",
        "<code>\n~~~\nx = 6\nprint(x * 7)\n~~~\n",
        "<code>\n```Python3\ns = '''\n```\n'''\nprint(42)\n```\nThen:\n",
        "<think>\nFinal Answer: 3\n</think><code>\n```python\nprint(42)\n```\n",
    ],
)
async def test_all_code_of_an_sft_step_runs(interpreter: ForkInterpreter, text: str) -> None:
    assert (await interpreter.run(None, SFT.read(text).code)).observation == "42"


# --- drafts, cut texts and messages are no answers


@pytest.mark.parametrize(
    ("markup", "text", "answer"),
    [
        (TORA, "<think>$\\boxed{3}$?</think>It is $\\boxed{4}$.", "4"),
        (TORA, "perhaps \\boxed{3}</think>\nThe answer is 4.", "4"),
        (TORA, "<|channel|>analysis<|message|>\\boxed{3}<|end|><|channel|>final<|message|>\\boxed{4}", "4"),
        (TORA, "<think>The answer is 3.", ""),
        (COT, "<think>The answer is 3.</think> The answer is 4.", "4"),
        (SFT, "<think>Final Answer: 3</think>\n<p>\nFinal Answer: 4\n</p>\n", "4"),
        (SFT, "<p>\nFinal Answer: 3\n</p>\n<p>\nFinal Answer: $4$\n</p>\n", "4"),
        (REACT, "<thinking>Final Answer: 3</thinking>\nFinal Answer: 4", "4"),
        (REACT, "Final Answer: 3\nFinal Answer: 4", "4"),
        (SFT, "<p>\nFinal Answer: ZeroDivisionError: division by zero\n</p>", ""),
        (SFT, "<p>\nFinal Answer: Done\n</p>", ""),
    ],
)
def test_the_answer_stands_outside_of_drafts_and_is_the_last(markup, text: str, answer: str) -> None:
    step = markup.read(text)
    assert step.final_answer == answer and step.parsable is bool(answer)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (TORA, "The answer is 12"),
        (TORA, "It is $\\boxed{12}$ as"),
        (PAL, "def solution():\n    return 12"),
        (COT, "The answer is 12"),
        (SFT, "<p>\nFinal Answer: 12"),
        (REACT, "Final Answer: 12"),
        (REACT, "Action: python_interpreter\nAction Input: print(12"),
    ],
)
def test_a_text_that_is_cut_at_max_tokens_is_no_answer(markup, text: str) -> None:
    assert markup.read(text).parsable
    assert not markup.read(text, finish="length").parsable


@pytest.mark.parametrize(
    "observation",
    ["ZeroDivisionError: division by zero", "Timeout Error", "Done", "", "json.decoder.JSONDecodeError: x", "None"],
)
def test_an_error_message_is_no_answer(observation: str) -> None:
    before = f"```python\n1\n```\n```output\n{observation}\n```"
    assert not TORA.read("I cannot continue.", before).parsable
    assert TORA.read("The answer is 5.", before).final_answer == "5"


def test_thinking_over_several_steps_ends_where_its_tag_does() -> None:
    path = ["<think>", "Could it be \\boxed{3}?", "No.</think>", "**Final Answer:**", "$4$"]
    read = [COT.read(step, "\n\n".join(path[:at])) for at, step in enumerate(path)]
    assert [step.thought for step in read] == [True] * 4 + [False] and read[-1].final_answer == "$4$"


# --- the published rules


def test_the_published_rules_read_steps_as_the_originals_did() -> None:
    tora, sft = make("tora", published=True), make("react_sft", published=True)
    assert tora.read(f"It is $\\boxed{{40}}$.\n```python\n{RUN}\n```").final_answer == "40"  # a box stops the code
    assert tora.read("```python\nx = 1\n```\n```python\nprint(x)\n```").code == "print(x)\n"  # the last block alone
    assert tora.read("The answer is 12", finish="length").final_answer == "12"
    assert sft.read("Final Answer: 3\nFinal Answer: 4\n</p>").final_answer == "3\nFinal Answer: 4"
    assert sft.read("Final Answer: 12", finish="length").final_answer == "12"


# --- in the search


class Cut(ScriptedModel):
    """Every sample of the first kind is cut at `max_tokens`."""

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        expansion = await super().sample(context, n, params)
        cut = (replace(one, finish="length" if at < 3 else "eos") for at, one in enumerate(expansion.samples))
        return Expansion(expansion.value, tuple(cut))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tora_interpreter() -> AsyncIterator[ForkInterpreter]:
    async with ForkInterpreter(profile="tora", preload=()) as running:
        yield running


async def search(interpreter: ForkInterpreter, model: ScriptedModel, markup: str = "tora", **keys: object) -> dict:
    keys = {"prompt_wrap": markup, "result_unwrap": markup, "errors_threshold": 8, "max_depth": 4, "seed": 0} | keys
    config = Config.model_validate(keys)
    return await Solver(config, model, make(markup, config.published_rules), interpreter, exact).solve(ask())


async def test_cut_samples_do_not_vote(tora_interpreter: ForkInterpreter) -> None:
    model = Cut(lambda prompt, index: "The answer is 5." if index > 2 else "The answer is 12", value=lambda prompt: 0.0)
    keys = {"mode": "sbs", "n_generate_sample": 1, "step_beam_width": 4, "need_value_func": True, "vote": "majority"}
    record = await search(tora_interpreter, model, **keys)
    assert record["prediction"]["final_answer"] == "5" and record["prediction"]["candidates"] == 1
    assert record["meta"]["failures"]["truncated"] == 3
    published = await search(tora_interpreter, model, published_rules=True, **keys)
    assert published["prediction"]["final_answer"] == "12" and published["prediction"]["votes"] == 3


@pytest.mark.parametrize("code", ["1 / 0", "import time; time.sleep(100)", "x = 1", "print(None)"])
async def test_a_program_that_found_nothing_gives_no_prediction(code: str) -> None:
    async with ForkInterpreter(profile="tora", preload=(), timeout_seconds=1) as interpreter:
        say = lambda prompt, index: "I cannot go on." if "output" in prompt else f"```python\n{code}\n```"  # noqa: E731
        record = await search(interpreter, ScriptedModel(say), mode="react")
        assert record["prediction"] is None


async def test_a_pal_program_that_returns_nothing_gives_no_prediction(tora_interpreter: ForkInterpreter) -> None:
    say = lambda prompt, index: "```python\ndef solution():\n    pass\n```"  # noqa: E731
    record = await search(tora_interpreter, ScriptedModel(say), "pal", mode="react")
    assert record["prediction"] is None and record["meta"]["no_answer"] == "unparsable"


async def test_whatever_the_fence_the_search_runs_the_code(tora_interpreter: ForkInterpreter) -> None:
    labels = ("Python3", "", "~~~", "json")

    def say(prompt: str, index: int) -> str:
        if "```output" in prompt:
            return f"The answer is ${prompt.rpartition('```output')[2].split()[0]}$."
        if labels[index] == "json":
            return '{"name": "python", "arguments": {"code": "print(42)"}}\nThat makes 40.'
        mark = "~~~" if labels[index] == "~~~" else "```"
        return f"I expect 40.\n{mark}{labels[index].strip('~')}\nprint(42)\n{mark}\nThat makes 40."

    records = await asyncio.gather(
        *(search(tora_interpreter, ScriptedModel(lambda p, i, at=at: say(p, at)), mode="react") for at in range(4))
    )
    assert [record["prediction"]["final_answer"] for record in records] == ["$42$"] * 4


@pytest.mark.parametrize(
    "piece", ["```\n", '{"name": "', '{"a":', "<code>", "<tool_call>", "<think>", "</think>", "~~~ a\n"]
)
def test_a_hostile_text_is_read_in_no_long_time(piece: str) -> None:
    import time

    started = time.process_time()
    TORA.read(piece * (20_000 // len(piece)))
    assert time.process_time() - started < 2.0

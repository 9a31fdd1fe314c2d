"""Chats: what a preset asks and reads, thinking and its budget, how observations come back, and every search."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from arbor.assembly import load_markup
from eval.grading.extract import extract
from mcts.config import Config
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.markup import make_markup
from mcts.markup.chat import ChatMarkup, Style
from mcts.markup.presets import PRESETS
from mcts.model import Context, Conversation, Expansion, Message, Sample, Sampling
from mcts.search.driver import Solver, run_file
from mcts.trees.file import TreeWriter
from models.engines.config import load_config
from tests.mcts.conftest import ScriptedModel, ask, exact

KEYS = {"prompt_wrap": "chat", "result_unwrap": "chat", "max_depth": 12, "errors_threshold": 4}
CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "chat").glob("*.yaml"))


def markup(preset: str | None = None, **keys: object) -> ChatMarkup:
    made = make_markup("chat", "\n\n", extract=extract, keys={"preset": preset, **keys})
    assert isinstance(made, ChatMarkup)
    return made


class ChatModel(ScriptedModel):
    """Ends a sample at a stop string and at `max_tokens` characters, as an engine does; "⏹" is its end of sequence.
    Turns look like "⟦role⟧content"."""

    def encode_chat(self, chat: Conversation) -> tuple[int, ...]:
        turns = "".join(f"⟦{one.role}⟧{one.content}" for one in chat.messages)
        return self.encode(turns + ("⟦assistant⟧" if turns else "") + chat.opening)

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        drawn = await super().sample(context, n, params)
        return Expansion(drawn.value, tuple(self._ended(one.text, params) for one in drawn.samples))

    def _ended(self, text: str, params: Sampling) -> Sample:
        found = [(at, one) for one in params.stop if (at := text.find(one)) >= 0]
        at, stop = min(found, default=(len(text), ""))
        whole = text[: at + len(stop)]
        if len(whole.removesuffix("⏹")) > params.max_tokens:
            whole = whole[: params.max_tokens]
            return Sample(self.encode(whole), whole, -1.0, "length", ends=tuple(range(1, len(whole) + 1)))
        finish = "stop" if stop else "eos"
        whole = whole.removesuffix("⏹")
        ends = tuple(range(1, len(whole) + 1))
        return Sample(self.encode(whole), whole.removesuffix(stop), -1.0, finish, stop, "", ends)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def interpreter() -> AsyncIterator[ForkInterpreter]:
    async with ForkInterpreter(profile="tora", timeout_seconds=20) as running:
        yield running


async def solve(interpreter: ForkInterpreter, say, **keys):
    """(record, model) of one question; `say` takes the prompt and the sample's index."""
    value = keys.pop("value", lambda prompt: 0.0)
    config = Config.model_validate({**KEYS, "mode": "react", "temperature": 0.0, **keys})
    model = ChatModel(say, value)
    solver = Solver(config, model, load_markup(config), interpreter, exact)
    return await solver.solve(ask("What is 6 * 7?", answer="42")), model


def spelled(record, model: ChatModel) -> str:
    """The tokens of a greedy chain as text: exactly what the model saw and wrote."""
    nodes = [node for tag, node in record["react"].items() if tag != "solutions"]
    return "".join(chr(token) for node in nodes for token in node["token_ids"])


# --- prompts


def test_a_prompt_holds_system_examples_and_the_question(tmp_path: Path) -> None:
    examples = tmp_path / "examples.json"
    examples.write_text('[{"question": "1+1?", "solution": "2"}, {"question": "no", "solution": "no"}]')
    keys = {"system": "Be brief.", "user": "Q: {question}"}
    made = make_markup("chat", "\n\n", None, str(examples), 1, extract=extract, keys=keys)
    roles = [("system", "Be brief."), ("user", "Q: 1+1?"), ("assistant", "2"), ("user", "Q: {question} \\x?")]
    assert made.prompt("{question} \\x?") == Conversation(tuple(Message(*turn) for turn in roles))


def test_instructions_of_a_file_are_the_system_prompt_unless_a_key_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "system.txt"
    path.write_text("From a file.\n")
    for keys, content in (({"preset": "qwen2.5-math"}, "From a file."), ({"system": "A key."}, "A key.")):
        prompt = make_markup("chat", "\n\n", str(path), extract=extract, keys=keys).prompt("?")
        assert isinstance(prompt, Conversation) and prompt.messages[0] == Message("system", content)


def test_a_key_wins_over_its_preset() -> None:
    made = markup("r1-distill", thinking_tokens=5, options={"a": 1})
    assert (made.style.thinks, made.style.thinking_tokens, made.style.options) == ("<think>", 5, {"a": 1})
    assert markup("llama-3", options={"a": 1}).style.options == {"date_string": "26 Jul 2024", "a": 1}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"preset": "qwen-math"}, r"chat_preset 'qwen-math': unknown; did you mean 'qwen2.5-math'\?"),
        ({"user": "Solve it."}, r"user_prompt 'Solve it.': expected \{question\}"),
        ({"thinking_tokens": 9}, "name its tag, such as thinking_tag"),
    ],
)
def test_what_does_not_fit_is_one_line(keys: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_markup("chat", "\n\n", extract=extract, keys=keys)


async def test_a_model_without_a_chat_template_is_refused() -> None:
    config = Config.model_validate({**KEYS, "mode": "react"})
    solver = Solver(config, ScriptedModel(lambda prompt, index: ""), load_markup(config), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="takes no chats"):
        await solver.solve(ask())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_makes_its_markup(path: Path) -> None:
    config = load_config(path)
    made = load_markup(config)
    assert made.step_delim == config.step_delim and config.chat_preset in PRESETS
    assert path.read_text(encoding="utf-8").startswith("# arbor ")


def test_every_preset_has_a_configuration() -> None:
    assert {load_config(path).chat_preset for path in CONFIGS} == set(PRESETS)


# --- steps and answers


async def test_paragraphs_are_steps_until_one_holds_the_box(interpreter: ForkInterpreter) -> None:
    text = "Six sevens.\n\nThe answer is near.\n\nSo it is $\\boxed{42}$. That was easy.⏹"
    record, model = await solve(interpreter, lambda p, i: text[len(p.partition("⟦assistant⟧")[2]) :], answer_by="box")
    assert record["prediction"]["final_answer"] == "42" and record["prediction"]["tag"] == "0.0.0.0"
    assert spelled(record, model) == "⟦user⟧What is 6 * 7?⟦assistant⟧" + text[:-1] + "\n\n"


@pytest.mark.parametrize("gap", ["\n\n", "\n"])
async def test_sections_under_headings_are_steps(interpreter: ForkInterpreter, gap: str) -> None:
    text = f"## Step 1: Multiply\nSix\n\nsevens.{gap}## Step 2: Say it\nThe final answer is: $\\boxed{{42}}$⏹"
    said = text.replace("\n## Step 2", "\n\n## Step 2").replace("\n\n\n", "\n\n")
    record, model = await solve(
        interpreter,
        lambda p, i: text[text.index("## Step 2") :] if "sevens" in p else text,
        step_cut="heading", answer_by="marker",
    )  # fmt: skip
    first, second = said[:-1].split("\n\n## Step 2")
    assert [record["react"][tag]["text"] for tag in ("0.0", "0.0.0")] == [first, f"## Step 2{second}"]
    assert spelled(record, model).partition("⟦assistant⟧")[2] == said[:-1] + "\n\n"
    assert record["prediction"]["final_answer"] == "42"


@pytest.mark.parametrize(
    ("by", "text", "answer"),
    [
        ("box", "The answer is 3. $\\boxed{4}$", "4"),
        ("box", "The answer is 3.", ""),
        ("box", "\\boxed{}", ""),
        ("marker", "The answer is 3.", "3"),
        ("marker", "So 3 remain.", ""),
        ("statement", "So 3 remain.", "3"),
        ("statement", "I do not know.", ""),
    ],
)
@pytest.mark.parametrize("cut", ["paragraph", "heading", "code", "turn"])
def test_answers_stand_where_the_style_says(by: str, text: str, answer: str, cut: str) -> None:
    step = markup(answer=by, cut=cut).read(text, finish="eos")
    assert step.final_answer == answer and step.parsable == bool(answer)


def test_a_draft_and_a_text_that_breaks_off_are_no_answers() -> None:
    made = markup(answer="box")
    assert made.read("<think>\n\\boxed{1}", finish="eos").final_answer == ""
    assert made.read("<think>\\boxed{1}</think>\\boxed{2}", finish="eos").final_answer == "2"
    assert made.read("So \\boxed{1}", finish="length").final_answer == ""


# --- thinking


def thinker(prompt: str, index: int) -> str:
    """Thinks, with a wrong box and a program in it, and answers behind the tag."""
    written = prompt.partition("⟦assistant⟧")[2]
    text = "<think>\nMaybe \\boxed{7}.\n\n```python\nprint(1)\n```\nNo.\n</think>\n\nSix sevens.\n\nIt is \\boxed{42}.⏹"
    return text[len(written) :] if text.startswith(written) else "It is \\boxed{42}.⏹"


async def test_thinking_is_one_step_that_stays_in_the_context_and_holds_no_answer(interpreter: ForkInterpreter) -> None:
    record, model = await solve(interpreter, thinker, chat_preset="r1-distill")
    assert record["prediction"] == {
        "final_answer": "42", "tag": "0.0.0.0", "run": 0, "votes": 1, "candidates": 1, "correct": True,
    }  # fmt: skip
    assert record["react"]["0.0"]["text"].endswith("No.\n</think>") and record["meta"]["snippets"] == 0
    assert "<think>\nMaybe \\boxed{7}." in model.prompts[-1] and "</think>\n\nSix sevens.\n\n" in model.prompts[-1]


@pytest.mark.parametrize("budget", [1, 20, 60])
async def test_thinking_is_closed_where_its_budget_ends(interpreter: ForkInterpreter, budget: int) -> None:
    record, model = await solve(interpreter, thinker, chat_preset="r1-distill", thinking_tokens=budget)
    node = record["react"]["0.0"]
    written = "Maybe \\boxed{7}.\n\n```python\nprint(1)\n```\nNo."[:budget]
    if budget < 40:
        assert node["finish"] == "length" and node["text"] == f"{written}\n</think>"
        assert model.prompts[1].endswith(f"<think>\n{written}\n</think>\n\n")
    assert record["prediction"]["final_answer"] == "42"


async def test_thinking_without_a_budget_has_to_fit_a_step(interpreter: ForkInterpreter) -> None:
    record, _ = await solve(interpreter, thinker, thinking_tag="<think>", max_tokens=10)
    assert record["prediction"] is None and record["meta"]["failures"] == {"truncated": 1}
    record, _ = await solve(interpreter, thinker, thinking_tag="<think>", max_tokens=200)
    assert record["prediction"]["final_answer"] == "42"


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
    ],
)
def test_the_closing_tag_is_that_of_the_family(opens: str, closes: str) -> None:
    made = markup(thinks=opens, cut="turn", answer="box")
    assert Style(thinks=opens).closes == closes and made.thinking("\\boxed{1}") and not made.thinking(f"a{closes}")
    assert made.read(f"\\boxed{{1}}\n{closes}\n\\boxed{{2}}", finish="eos").final_answer == "2"
    assert not made.read("\\boxed{1}", finish="eos").parsable


# --- tools


def computes(prompt: str, index: int) -> str:
    if "42\n```" in prompt or "⟦tool⟧42" in prompt:
        return "It is $\\boxed{42}$.⏹"
    return "I compute.\n```python\nprint(6 * 7)\n```\n```output\n99\n```\nSo \\boxed{99}⏹"


@pytest.mark.parametrize(
    ("keys", "between"),
    [
        ({"chat_preset": "qwen2.5-math-tir"}, "\n```output\n42\n```\n"),
        ({"step_cut": "turn", "observation_as": "output"}, "\n```output\n42\n```\n"),
        ({"step_cut": "code", "observation_as": "user"}, "⟦user⟧```output\n42\n```⟦assistant⟧"),
        ({"step_cut": "turn", "observation_as": "user"}, "⟦user⟧```output\n42\n```⟦assistant⟧"),
        ({"chat_preset": "llama-3-tool"}, "⟦tool⟧42⟦assistant⟧"),
    ],
)
async def test_an_observation_comes_back_as_the_model_knows_it(
    interpreter: ForkInterpreter, keys: dict[str, object], between: str
) -> None:
    """Never the output that the model made up."""
    record, model = await solve(interpreter, computes, **keys)
    assert record["prediction"]["final_answer"] == "42" and record["meta"]["snippets"] == 1
    assert model.prompts[1].endswith(f"print(6 * 7)\n```{between}")
    assert "99" not in spelled(record, model) and "```output\n42\n```" in record["react"]["0.0"]["text"]


async def test_code_of_a_tool_call_token_runs(interpreter: ForkInterpreter) -> None:
    say = lambda p, i: "It is \\boxed{42}⏹" if "⟦tool⟧" in p else "<|python_tag|>print(6 * 7)⏹"  # noqa: E731
    record, model = await solve(interpreter, say, chat_preset="llama-3-tool")
    assert record["prediction"]["final_answer"] == "42" and "<|python_tag|>print(6 * 7)⟦tool⟧42" in model.prompts[1]


@pytest.mark.parametrize(("by", "answer"), [("box", None), ("marker", None), ("statement", "42")])
async def test_what_a_program_printed_is_an_answer_only_by_statement(
    interpreter: ForkInterpreter, by: str, answer: str | None
) -> None:
    say = lambda p, i: "That is all.⏹" if "output" in p else "```python\nprint(6 * 7)\n```\n⏹"  # noqa: E731
    record, _ = await solve(interpreter, say, step_cut="code", answer_by=by)
    assert (record["prediction"] or {}).get("final_answer") == answer


# --- searches, fingerprints


@pytest.mark.parametrize("preset", ["qwen2.5-math", "qwen2.5-math-tir", "r1-distill", "llama-3-tool", "gpt-oss"])
@pytest.mark.parametrize("mode", ["sbs", "mcts"])
async def test_searches_find_the_valued_answer(interpreter: ForkInterpreter, preset: str, mode: str) -> None:
    def say(prompt: str, index: int) -> str:
        style = PRESETS[preset]
        if style.thinks and "</think>" not in prompt:
            return f"Hm {40 + index}.\n</think>"
        outputs = re.findall(r"(?:output\n|⟦tool⟧)(\d+)", prompt)
        if style.runs_code and not outputs:
            return f"```python\nprint({40 + index})\n```\n⏹"
        hint = re.findall(r"Hm (\d+)", prompt) or outputs or [str(40 + index)]
        return f"It is $\\boxed{{{hint[-1]}}}$.⏹"

    keys = {"n_generate_sample": 3, "iterations": 12, "need_value_func": True}
    value = lambda prompt: 0.9 if "42" in prompt else -0.5  # noqa: E731
    record, _ = await solve(interpreter, say, mode=mode, chat_preset=preset, value=value, **keys)
    assert record["prediction"]["correct"] is True
    runs, _ = await solve(interpreter, say, mode="react", chat_preset=preset, n_runs=3)
    assert runs["prediction"]["candidates"] == 3


async def test_a_stopped_run_goes_on_to_the_same_trees(interpreter: ForkInterpreter, tmp_path: Path) -> None:
    """Thinking budgets and turns of tools included; the tokens of every node, too."""

    def say(prompt: str, index: int) -> str:
        if "</think>" not in prompt:
            return f"Hm {len(prompt) + index}, and so on and so on."
        return f"It is \\boxed{{{index}}}⏹" if "⟦tool⟧" in prompt else f"```python\nprint({index})\n```⏹"

    keys = {"chat_preset": "llama-3-tool", "thinking_tag": "<think>", "thinking_tokens": 12, "n_runs": 2}
    config = Config.model_validate({**KEYS, "mode": "react", "temperature": 0.0, **keys})
    questions = [ask(f"What is {index}?", index) for index in range(4)]

    async def run(name: str, stop_after: int) -> list[str]:
        writer = TreeWriter(tmp_path / name, "f")
        writer.open(resume=True)
        seen: list[object] = []

        def tick(record: object) -> None:
            seen.append(record)
            if len(seen) == stop_after:
                raise KeyboardInterrupt

        solver = Solver(config, ChatModel(say), load_markup(config), interpreter, exact, meta={"fingerprint": "f"})
        with suppress(KeyboardInterrupt):
            await run_file(solver, questions, writer, 1, tick)
        lines = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        return [json.dumps({key: json.loads(line)[key] for key in ("react", "runs", "prediction")}) for line in lines]

    whole = await run("whole.jsonl", 9)
    assert len(await run("parts.jsonl", 2)) == 2 and await run("parts.jsonl", 9) == whole and len(whole) == 4
    assert "</think>" in whole[0] and json.loads(whole[0])["prediction"]["final_answer"] == "0"


def test_chat_keys_shape_a_run_and_their_absence_none() -> None:
    plain = Config.model_validate({"mode": "react"}).fingerprint()
    chats = [{}, {"chat_preset": "smollm2"}, {"system_prompt": "a"}, {"thinking_tag": "<think>", "thinking_tokens": 4}]
    found = {Config.model_validate({**KEYS, "mode": "react", **keys}).fingerprint() for keys in chats}
    assert len({plain, *found}) == len(chats) + 1
    assert "system_prompt" not in Config().shaping_keys()

"""Shaping the output space, and worked solutions as examples."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from eval.grading.extract import extract
from mcts.config import Config
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.markup import SftMarkup, make_markup
from mcts.search.driver import Solver
from models.training.imitation import EOS, Spelling, message_pieces, write_examples
from models.training.shaping import Limits, Shaper, Teacher, line_prefixes, tool_error
from tests.conftest import byte_level_tokenizer, sentencepiece_like_tokenizer, write_jsonl
from tests.mcts.conftest import ScriptedModel, ask, code_step, exact, final_step, make_solver
from tests.models.chats import FAMILIES, tokenizer_of

TORA = make_markup("tora", "\n", train_prompt=True, extract=extract)
KEYS = {"mode": "react", "prompt_wrap": "tora", "result_unwrap": "tora", "train_prompt": True, "max_depth": 6}
WRONG = "Add.\n```python\nx = 1\nprint(x)\n```"
CONTENT = (
    "Add.\n```python\nprint(1)\n```\n```output\n1\n```\nAgain.\n```python\nprint(2)\n```\n```output\n2\n```\nSo 2."
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def interpreter() -> AsyncIterator[ForkInterpreter]:
    async with ForkInterpreter(profile="tora", timeout_seconds=20, preload=()) as running:
        yield running


def solver(model: ScriptedModel, interpreter: ForkInterpreter, **keys: object) -> Solver:
    return Solver(Config.model_validate(KEYS | {"errors_threshold": 8} | keys), model, TORA, interpreter, exact)


def student(prompt: str, index: int) -> str:
    """Always computes 1 and says so."""
    return "It is $\\boxed{1}$." if "output" in prompt else WRONG


def teacher(prompt: str, index: int) -> str:
    """Goes on to compute 2, wherever it is put."""
    text = prompt.partition("<|assistant|>\n")[2]
    if "```output\n2" in prompt:
        return "It is $\\boxed{2}$."
    if text.endswith("\n```output\n1\n```\n"):
        return "Better:\n```python\nprint(2)\n```"
    if text.count("```") % 2:
        return "\nx = 2\nprint(x)\n```"
    return "\n```python\nprint(2)\n```"


def test_prefixes_end_at_every_line_that_the_model_wrote() -> None:
    steps = [f"{WRONG}\n```output\n1\n```", "It is\n$\\boxed{1}$."]
    found = list(line_prefixes(TORA, steps))
    assert [text for place, text in found if place == 0] == [
        "\n".join(["Add.", "```python", "x = 1", "print(x)", "```"][:count]) for count in range(1, 6)
    ]
    assert [text for place, text in found if place == 1] == ["", "It is"]


@pytest.mark.parametrize(
    ("output", "error"),
    [("3", False), ("NameError: name 'y' is not defined", True), ("Timeout Error", True), ("SystemExit: 0", True)],
)
def test_a_valid_solution_has_no_tool_error(output: str, error: bool) -> None:
    assert tool_error(TORA, [f"No Error here.\n```python\nprint()\n```\n```output\n{output}\n```"]) is error
    step = SftMarkup().read(code_step("print()"))
    assert tool_error(SftMarkup(), [SftMarkup().observed(step, output)]) is error


async def shaped(interpreter: ForkInterpreter, say=student, n: int = 2, **limits: int) -> list[dict]:
    question = ask(answer="2")
    record = await solver(ScriptedModel(say), interpreter, n_runs=n).solve(question)
    model = ScriptedModel(teacher)
    found = await Shaper(Teacher(solver(model, interpreter)), exact, Limits(**limits)).shape(question, record)
    for one in found:  # every text that a teacher saw begins a prompt that the student's words stand in
        assert one["source"] == "sampled" or any("\nAdd." in prompt for prompt in model.prompts)
    return found


async def test_a_wrong_solution_is_continued_from_its_lines_until_it_is_right(interpreter: ForkInterpreter) -> None:
    found = await shaped(interpreter)
    texts = ["\n".join(one["steps"]) for one in found]
    assert {one["source"] for one in found} == {"corrected"} and len(set(texts)) == len(texts) == 4
    for text in texts:
        assert text.startswith("Add.\n") and text.endswith("It is $\\boxed{2}$.")
        (output,) = re.findall(r"```output\n(.*?)\n```", text)[-1:]
        assert output == "2"  # really run: the teacher only wrote code
    assert any("x = 1\nx = 2\nprint(x)" in text for text in texts)
    assert any("```output\n1\n```\nBetter:" in text for text in texts)


async def test_valid_samples_are_kept_and_need_no_teacher(interpreter: ForkInterpreter) -> None:
    found = await shaped(interpreter, teacher, n=3, enough=1)
    assert [one["source"] for one in found] == ["sampled"]  # three equal ones are one
    assert found[0]["steps"][-1] == "It is $\\boxed{2}$."


async def test_a_right_answer_after_a_tool_error_is_not_valid(interpreter: ForkInterpreter) -> None:
    def stumbling(prompt: str, index: int) -> str:
        return "It is $\\boxed{2}$." if "output" in prompt else "```python\nprint(y)\n```"

    assert await shaped(interpreter, stumbling, wrong=0) == []


async def test_at_most_so_many_are_kept(interpreter: ForkInterpreter) -> None:
    assert len(await shaped(interpreter, keep_corrected=1)) == 1


async def test_a_teacher_goes_on_in_the_students_state(interpreter: ForkInterpreter) -> None:
    """With state carried on, a step that the teacher writes sees the variables of the student's steps."""
    question = ask(answer="2")
    ran = {"prompt_wrap": "react_sft"}
    says = {0: code_step("x = 1"), 1: final_step("1")}
    model = ScriptedModel(lambda prompt, i: says["<output>" in prompt])
    record = await make_solver(model, interpreter, mode="react", max_depth=6, **ran).solve(question)

    def teach(prompt: str, index: int) -> str:
        if "\n2\n</output>" in prompt:
            return final_step("2")
        return code_step("print(x + 1)") if prompt.endswith("</step>\n") else ""

    own = make_solver(ScriptedModel(teach), interpreter, mode="react", max_depth=6, **ran)
    (one, *_) = await Shaper(Teacher(own), exact).shape(question, record)
    assert len(one["steps"]) == 3 and "print(x + 1)" in one["steps"][1]


# --- examples


def spelled(row: dict, tokenizer, **keys) -> tuple[str, str, dict]:
    """(whole text, learned text, line) of a row's example."""
    from models.engines.text import Tokenizer

    line = Spelling(Tokenizer(tokenizer), tokenizer.eos_token_id, TORA, True, **keys).example(row)
    learned = [one for one, kept in zip(line["token_ids"], line["loss_mask"], strict=True) if kept]
    return tokenizer.decode(line["token_ids"]), tokenizer.decode(learned), line


MESSAGES = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": CONTENT}]}


@pytest.mark.parametrize("make", [byte_level_tokenizer, sentencepiece_like_tokenizer])
def test_tool_output_and_prompts_are_not_trained_on(make) -> None:
    tokenizer = make()
    whole, learned, line = spelled(MESSAGES, tokenizer)
    end = tokenizer.eos_token
    assert whole.removeprefix("<s>").strip() == f"<|user|>\nWhat?\n<|assistant|>\n{CONTENT}{end}"
    assert "\n1\n" not in learned and "\n2\n" not in learned and "What?" not in learned
    assert learned.count("```output") == 2 and learned.strip().endswith(f"So 2.{end}")
    assert len(line["token_ids"]) == len(line["loss_mask"]) and not line["targets"]


def test_tool_output_is_trained_on_when_asked() -> None:
    _, learned, _ = spelled(MESSAGES, byte_level_tokenizer(), learn_outputs=True)
    assert learned == f"{CONTENT}<eos>"


def test_steps_and_messages_of_one_solution_give_the_same_example() -> None:
    steps = re.split(r"(?<=```)\n(?=Again|So)", CONTENT)
    row = {"question": "What?", "steps": steps}
    assert len(steps) == 3
    assert spelled(row, byte_level_tokenizer())[2] == spelled(MESSAGES, byte_level_tokenizer())[2]


def test_conversations_learn_every_reply_and_no_other_turn() -> None:
    turns = [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")]
    pieces = message_pieces(TORA, [{"role": role, "content": content} for role, content in turns])
    written = [text for text, author in pieces if author == "model"]
    assert written == ["B", EOS, "D", EOS]
    assert "".join(text for text, _ in pieces) == (
        f"<|system|>\nS\n<|user|>\nA\n<|assistant|>\nB{EOS}\n<|user|>\nC\n<|assistant|>\nD{EOS}"
    )


@pytest.mark.parametrize("name", ["qwen2.5-math", "smollm2", "llama-3", "r1-distill"])
def test_turns_of_a_chat_are_spelled_as_its_template_lays_them_out(name: str) -> None:
    """Rows of messages, and of steps whose observations are turns of a tool: the model learns what it wrote and the
    token that ends each of its turns."""
    from models.engines.text import Tokenizer

    tokenizer, options = tokenizer_of(name), FAMILIES[name].options
    keys = {"cut": "turn", "observation": "tool", "options": options, "system": "Run code."}
    markup = make_markup("chat", None, extract=extract, keys=keys)
    said, answer = "I run\n```python\nprint(2 + 3)\n```", "The answer is 5."
    turns = [("system", "Run code."), ("user", "What?"), ("assistant", said), ("tool", "5"), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    whole = tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"]
    rows = {"messages": messages}, {"question": "What?", "steps": [f"{said}\n```output\n5\n```", answer]}
    for row in rows:
        line = Spelling(Tokenizer(tokenizer), tokenizer.eos_token_id, markup, True).example(row)
        assert line["token_ids"] == whole[: len(line["token_ids"])] and len(whole) - len(line["token_ids"]) <= 1
        learned = [one for one, kept in zip(line["token_ids"], line["loss_mask"], strict=True) if kept]
        assert tokenizer.decode(learned) == f"{said}{tokenizer.eos_token}{answer}{tokenizer.eos_token}"


def test_the_published_corpus_is_read(reference: Path, tmp_path: Path) -> None:
    from models.engines.text import Tokenizer

    tokenizer = byte_level_tokenizer()
    spelling = Spelling(Tokenizer(tokenizer), tokenizer.eos_token_id, TORA, True)
    counts = write_examples([reference / "tora/examples.jsonl"], spelling, tmp_path / "e.jsonl")
    rows = [json.loads(line) for line in (reference / "tora/examples.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text(encoding="utf-8").splitlines()]
    assert counts["examples"] == len(rows) == 30
    with_output = 0
    for row, line in zip(rows, lines, strict=True):
        content = row["messages"][1]["content"]
        assert tokenizer.decode(line["token_ids"]).endswith(f"{content.strip()}<eos>")
        masked = [one for one, kept in zip(line["token_ids"], line["loss_mask"], strict=True) if not kept]
        found = re.search(r"```output\n(.*?)\n```", content, re.DOTALL)
        with_output += found is not None
        assert found is None or tokenizer.decode(masked).rstrip("\n").endswith(f"{found[1]}\n```")
    assert with_output == 25


def test_bad_rows_are_named(tmp_path: Path) -> None:
    from models.engines.text import Tokenizer

    tokenizer = byte_level_tokenizer()
    spelling = Spelling(Tokenizer(tokenizer), tokenizer.eos_token_id, TORA, True)
    for row in ({"x": 1}, {"messages": [{"role": "tool", "content": "x"}]}, {"messages": 3}):
        path = write_jsonl(tmp_path / "rows.jsonl", [MESSAGES, row])
        with pytest.raises(UserError, match=r"rows\.jsonl:2: expected messages"):
            write_examples([path], spelling, tmp_path / "e.jsonl")
        assert not (tmp_path / "e.jsonl").exists()

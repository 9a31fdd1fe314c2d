"""Conversations as token ids: those of `apply_chat_template`, with the templates of well-known families."""

from __future__ import annotations

from typing import Any

import pytest

from eval.grading.extract import extract
from mcts.errors import UserError
from mcts.markup import make_markup
from mcts.markup.presets import PRESETS
from mcts.model import Conversation, Message
from models.engines.chat_template import encode_chat
from models.engines.text import Tokenizer
from tests.models.chats import FAMILIES, tokenizer_of

QUESTIONS = [
    "What is 2 + 3?", "  spaces around \n", "\n\nnewlines first", "é ∑ 数学 🙂", "a" * 200, "{{ 7 * 7 }} {% if x %}",
    "\ue000 private \ue001",
]  # fmt: skip
BARE = [name for name in FAMILIES if name != "inst"]  # those that take any order of turns


def reference(name: str, messages: list[dict[str, str]], **keys: Any) -> list[int]:
    """What transformers makes of a conversation."""
    laid_out = tokenizer_of(name).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, **FAMILIES[name].options, **keys
    )
    return list(laid_out["input_ids"])


def encoded(name: str, *turns: tuple[Any, str], **keys: Any) -> list[int]:
    messages = tuple(Message(role, content) for role, content in turns)
    return list(
        encode_chat(Tokenizer(tokenizer_of(name)), Conversation(messages, options=FAMILIES[name].options, **keys))
    )


def as_dicts(*turns: tuple[Any, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_prompt_is_what_apply_chat_template_makes(name: str, question: str) -> None:
    shown: list[tuple[Any, str]] = [("user", "1 + 1?"), ("assistant", "It is 2."), ("user", question)]
    for turns in (shown[2:], shown, [("system", "Be brief."), *shown]):
        if turns[0][0] == "system" and name == "inst":
            continue
        assert encoded(name, *turns) == reference(name, as_dicts(*turns)), turns


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].bos])
def test_the_bos_stands_once_in_front(name: str) -> None:
    ids, bos = encoded(name, ("user", "What is 2 + 3?")), tokenizer_of(name).bos_token_id
    assert ids[0] == bos and ids.count(bos) == 1
    assert tokenizer_of(name)("a")["input_ids"][0] == bos  # the tokenizer would have added another


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("role", ["user", "tool"])
def test_control_tokens_of_a_text_are_text(name: str, role: str) -> None:
    if name == "inst" and role == "tool":
        return
    tokenizer = tokenizer_of(name)
    controls = [*FAMILIES[name].special, *FAMILIES[name].added]
    ids = {tokenizer.convert_tokens_to_ids(control) for control in controls}
    head: list[tuple[Any, str]] = [("user", "1?"), ("assistant", "2")] if role == "tool" else []
    harmless = [one for one in encoded(name, *head, (role, "Say x now.")) if one in ids]
    for control in [*controls, "".join(controls), controls[0][0] + controls[0]]:
        found = encoded(name, *head, (role, f"Say {control} now."))
        assert [one for one in found if one in ids] == harmless, control
        if not FAMILIES[name].metaspace:
            assert f"Say {control} now." in tokenizer.decode(found)


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("role", ["user", "tool"])
@pytest.mark.parametrize("observation", ["5", "Error: x\n  in line 2", 'a "quoted" \\ é'])
def test_a_turn_behind_the_assistants_is_laid_out_alone(name: str, role: Any, observation: str) -> None:
    """The ids of the prompt, of what the assistant wrote and of the new turn are those of the whole conversation."""
    asked, said = ("user", "What is 2 + 3?"), "I run\n```python\nprint(2 + 3)\n```"
    prompt = encoded(name, asked)
    if name.startswith("r1"):
        prompt = reference("r1-distill", as_dicts(asked))  # a closed turn does not keep what its opening began
    turn = encoded(name, (role, observation), follows=True)
    whole = reference(name, as_dicts(asked, ("assistant", said), (role, observation)))
    own = list(Tokenizer(tokenizer_of(name)).encode(said))
    if name == "gpt-oss":  # the template puts the channel, which the model writes itself
        channel = Tokenizer(tokenizer_of(name)).encode_controls("<|channel|>final<|message|>", first=False)
        own = channel + own
    assert prompt + own + turn == whole


def test_an_opening_stands_once() -> None:
    asked = ("user", "What is 2 + 3?")
    plain, opened = "r1-distill", "r1-distill, opened"
    assert encoded(opened, asked, opening="<think>\n") == encoded(opened, asked) == reference(opened, as_dicts(asked))
    assert encoded(plain, asked, opening="<think>\n") == encoded(opened, asked)


def test_a_forced_closing_tag_is_the_control_token() -> None:
    tokenizer = tokenizer_of("r1-distill")
    ids = encode_chat(Tokenizer(tokenizer), Conversation((), follows=True, opening="\n</think>\n\n"))
    assert tokenizer.convert_tokens_to_ids("</think>") in ids and tokenizer.decode(ids) == "\n</think>\n\n"


def test_the_users_own_template_is_used() -> None:
    own = "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}{{ '[' + mood + ']' }}"
    tokenizer = Tokenizer(tokenizer_of("smollm2"))
    ids = encode_chat(tokenizer, Conversation((Message("user", "hi"),), template=own, options={"mood": "calm"}))
    assert tokenizer.decode_start(ids) == "[user]hi[calm]"


def test_what_cannot_be_laid_out_is_one_line() -> None:
    from tests.models.engines import small_tokenizer

    chat = Conversation((Message("user", "1?"),))
    with pytest.raises(UserError, match="has no chat template; name a file of one by chat_template_path"):
        encode_chat(Tokenizer(small_tokenizer()), chat)
    with pytest.raises(UserError, match="cannot lay out turns of system, user: turns alternate, user first") as refused:
        encoded("inst", ("system", "a"), ("user", "b"))
    assert "\n" not in str(refused.value)
    smollm2 = Tokenizer(tokenizer_of("smollm2"))
    for broken in ("{% if %}", "{{ messages[9].content }}", "{{ none_such() }}"):
        with pytest.raises(UserError, match="chat template: "):
            encode_chat(smollm2, Conversation(chat.messages, template=broken))
    with pytest.raises(UserError, match="leaves out what the assistant wrote"):
        encode_chat(smollm2, Conversation(chat.messages, follows=True, template="{{ messages[0].content }}"))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_prompt_of_a_preset_is_what_the_family_was_trained_on(preset: str) -> None:
    """System prompt and the question's turn of the preset, laid out by transformers."""
    name = next(name for name in FAMILIES if preset.startswith(name))
    style = PRESETS[preset]
    prompt = make_markup("chat", "\n\n", extract=extract, keys={"preset": preset}).prompt("What is 2 + 3?")
    assert isinstance(prompt, Conversation)
    system = [] if style.system is None else [("system", style.system)]
    turns = as_dicts(*system, ("user", style.user.replace("{question}", "What is 2 + 3?")))
    found = encode_chat(Tokenizer(tokenizer_of(name)), prompt)
    expected = tokenizer_of(name).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, **style.options
    )
    assert tokenizer_of(name).decode(found) == expected + ("<think>\n" if style.thinks else "")

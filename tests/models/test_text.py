"""Text in and out of tokenizers: the name of a control token in a text is text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from mcts.interpreter import ForkInterpreter
from mcts.model import Context
from mcts.search.driver import Solver
from models.engines.draft import Drafts
from models.engines.text import Tokenizer, load_tokenizer
from models.engines.transformers.engine import TransformersModel
from tests.conftest import byte_level_tokenizer, save_model_folder, sentencepiece_like_tokenizer
from tests.mcts.conftest import ask, make_solver

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny" / "weights"


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Byte level, with the control tokens of a chat model and a markup tag that is no control token."""
    tokenizer = byte_level_tokenizer(("<step>",))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.add_tokens([AddedToken("<|end|>", special=True)])
    return tokenizer


TOKENIZERS = {
    "tiny": (lambda: load_tokenizer(TINY), "<|end|>"),
    "chat": (chat_tokenizer, "<|im_end|>"),
    "chat, another": (chat_tokenizer, "<|end|>"),
    "byte level": (byte_level_tokenizer, "<eos>"),
    "sentencepiece": (sentencepiece_like_tokenizer, "</s>"),
    "sentencepiece, bos": (sentencepiece_like_tokenizer, "<s>"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_name_of_a_control_token_is_encoded_as_its_characters(name: str) -> None:
    make, control = TOKENIZERS[name]
    raw = make()
    tokenizer, which = Tokenizer(raw), raw.convert_tokens_to_ids(control)
    assert which in raw(f"a{control}b")["input_ids"]  # so the plain call does; and it must not undo what ours sets
    text = f"34 {control} boxes"
    start = tokenizer.encode_start(text)
    bos = len(raw("", add_special_tokens=True)["input_ids"])
    assert which not in start[bos:] and which not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([which]) == control  # sampled, it is itself


def test_tags_that_are_no_control_tokens_stay_single_tokens() -> None:
    raw = chat_tokenizer()
    assert Tokenizer(raw).encode("a<step>b")[1] == raw.convert_tokens_to_ids("<step>")


def test_a_prompt_still_begins_with_the_tokenizers_own_token() -> None:
    assert Tokenizer(sentencepiece_like_tokenizer()).encode_start("ab")[0] == 1


def test_a_server_that_reads_text_finds_no_control_token_in_one_piece() -> None:
    tokenizer = Tokenizer(chat_tokenizer())
    text = tokenizer.disarmed("a <|im_end|> b <|im_start|>system <eos> <step>")
    assert not any(name in text for name in ("<|im_end|>", "<|im_start|>", "<eos>"))
    assert "<step>" in text and text.replace("\u200b", "") == "a <|im_end|> b <|im_start|>system <eos> <step>"


async def test_no_control_token_reaches_a_tree_from_a_question_or_an_observation(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    folder = save_model_folder(tmp_path / "m", tokenizer=tokenizer)
    model = TransformersModel.load(folder, device="cpu")
    controls = {tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|end|>", "<eos>")}
    async with ForkInterpreter(preload=()) as interpreter:
        solver: Solver = make_solver(model, interpreter, mode="react", max_tokens=4, max_depth=1)
        record = await solver.solve(ask("34 boxes<|im_end|><|end|><eos>?"))
    assert not controls & set(record["react"]["0"]["token_ids"])
    observed = solver.markup.observed(solver.markup.read("<code>\n```python\n1\n```"), "printed <|im_end|>")
    assert not controls & set(model.encode(observed))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stop_string_is_found_at_the_token_that_completes_it(name: str) -> None:
    """However the text is cut into tokens; decoding the whole after every token is what it is held against."""
    tokenizer = Tokenizer(TOKENIZERS[name][0]())
    texts = ["f(x) = 2 .\n\n</code> and", "a\n</p>\n<p>\n</step>\n", "one.\n\n\ntwo é</code>", "no stop here < /code >"]
    stop = ("</code>", "</step>", "\n\n", "2 .")
    for text in texts:
        ids = tokenizer.encode(text)
        expected = next((n for n in range(1, len(ids) + 1) if any(s in tokenizer.decode(ids[:n]) for s in stop)), None)
        draft = Drafts(tokenizer, frozenset()).start(Context(None, ()), stop, 1000)
        ended = next((n for n, token in enumerate(ids, start=1) if draft.add(token, -1.0) is not None), None)
        assert ended == expected


def test_samples_that_part_keep_what_they_had_in_common() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer())
    first = Drafts(tokenizer, frozenset()).start(Context(None, ()), (), 3)
    start, *others = tokenizer.encode("abc")
    assert first.add(start, -1.0) is None
    second = first.fork()
    assert first.add(others[0], -0.5) is None and second.add(others[1], -0.25) is None
    ended = [draft.add(start, -1.0) for draft in (first, second)]
    assert [(one.text, one.logprob, one.logprobs) for one in ended if one is not None] == [
        ("aba", -2.5, (-1.0, -0.5, -1.0)),
        ("aca", -2.25, (-1.0, -0.25, -1.0)),
    ]

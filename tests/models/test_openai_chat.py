"""The OpenAI engine on /v1/chat/completions, over real HTTP: a server that lays out turns by a chat template and asks
the transformers engine."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install -r requirements-openai.txt")

from arbor.assembly import load_markup
from mcts.errors import UserError
from mcts.interpreter import ForkInterpreter
from mcts.model import Context, ContextTooLong, Conversation, Message, Sampling
from mcts.search.driver import Solver
from models.engines import client
from models.engines.client import pause_before, retry_after
from models.engines.config import make_config
from models.engines.openai import OpenAIModel, Settings
from models.engines.openai_chat import Letters, OpenAIChat
from models.engines.registry import check_model, describe_model, load_engine
from models.engines.transformers.engine import TransformersModel
from tests.mcts.conftest import ask
from tests.models.chats import tokenizer_of
from tests.models.completions import Handler, Service, start
from tests.models.test_openai_engine import NoIds

ASKED = Conversation((Message("system", "Be brief."), Message("user", "What is 2 + 3? é")))


class Chats(Handler):
    """replies: what is said in place of the model's messages, one after the other. asked: the bodies of requests."""

    timeout = 3.0  # seconds: no thread of a connection outlives the tests here by more
    names_stops: ClassVar[bool] = True
    refuses: ClassVar[dict[str, str]] = {}
    replies: ClassVar[list[Any]] = []
    asked: ClassVar[list[dict[str, Any]]] = []
    headers_seen: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.path.endswith("/chat/completions"):
            return self._fail(404, f"{self.path}: chats only")
        self.asked.append(body)
        self.headers_seen.append(dict(self.headers.items()))
        for key, words in self.refuses.items():
            if key in body:
                return self._fail(400, words)
        if self.replies:
            return self._reply(200, self.replies.pop(0))
        return self._reply(200, self._answer(body))

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        model, messages = self.service.model, list(body["messages"])
        begun = ""
        if body.get("continue_final_message") or messages[-1].get("prefix") or messages[-1]["role"] == "assistant":
            begun = messages.pop()["content"]
        turns = tuple(Message(one["role"], one["content"]) for one in messages)
        ids = model.encode_chat(Conversation(turns)) + model.encode(begun)
        stop = tuple(body.get("stop", ()))
        params = Sampling(body["temperature"], body.get("top_p", 1.0), -1, body["max_tokens"], stop)
        expansion = self.service.thread.call(model.sample(Context(None, ids), 1, params))
        sample = expansion.samples[0]
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": sample.text}}
        choice["finish_reason"] = "length" if sample.finish == "length" else "stop"
        choice["logprobs"] = {"content": [{"token": sample.text + sample.stop, "logprob": sample.logprob}]}
        if self.names_stops:
            choice["stop_reason"] = sample.stop or None
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(sample.token_ids)}
        return {"choices": [choice], "usage": usage}


@cache
def engines(folder: Path) -> tuple[Service, TransformersModel]:
    """The engine that servers ask, and one to compare with."""
    first, second = (TransformersModel.load(folder, need_value=False) for _ in range(2))
    return Service(first, "small"), second


class Server:
    def __init__(self, folder: Path, **changes: Any) -> None:
        service, self.reference = engines(folder)
        fresh = {"replies": [], "asked": [], "headers_seen": [], "refuses": {}}
        self.http, self.url = start(Chats, service, **(fresh | changes))
        self.handler: Any = self.http.RequestHandlerClass

    def model(self, **keys: Any) -> OpenAIChat:
        return OpenAIChat.load(need_value=False, engine_args={"api": "chat", "base_url": self.url, "retries": 1} | keys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with the tokenizer and the chat template of SmolLM2."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made, tokenizer = tmp_path_factory.mktemp("chat"), tokenizer_of("smollm2")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 2048}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(5)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **sizes, **heads, bos_token_id=None)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder)
    yield made
    made.http.shutdown()


async def both(server: Server, model: OpenAIChat, chat: Conversation, params: Sampling) -> tuple[Any, Any]:
    """The sample of the chat engine, and of the engine behind the server."""
    own = await model.sample(Context(None, model.encode_chat(chat)), 1, params)
    other = await server.reference.sample(Context(None, server.reference.encode_chat(chat)), 1, params)
    return own.samples[0], other.samples[0]


# --- samples


async def test_a_greedy_sample_is_that_of_the_engine_behind(server: Server) -> None:
    model = server.model()
    free, _ = await both(server, model, ASKED, Sampling(max_tokens=24))
    stops = (free.text[7], free.text[9], "none")
    for stop in ((), ("none",), stops):
        for _ in range(2):  # before and after it is known that the server names its stop strings
            own, other = await both(server, model, ASKED, Sampling(max_tokens=24, stop=stop))
            assert (own.text, own.stop, own.finish) == (other.text, other.stop, other.finish)
    assert own.finish == "stop" and server.handler.asked[-1]["stop"] == list(stops)
    assert server.handler.asked[-1]["model"] == "small"
    assert own.logprob == pytest.approx(other.logprob, abs=1e-3)
    assert model.tokenizer.decode(own.token_ids) == own.text + own.stop


async def test_a_server_that_does_not_name_stop_strings_is_not_sent_them(folder: Path) -> None:
    """Else the end of a paragraph could not be told from the end of the turn."""
    server = Server(folder, names_stops=False)
    model = server.model()
    free, _ = await both(server, model, ASKED, Sampling(max_tokens=24))
    for _ in range(3):
        own, other = await both(server, model, ASKED, Sampling(max_tokens=24, stop=("none", free.text[7])))
        assert (own.text, own.stop, own.finish) == (other.text, other.stop, other.finish) and own.finish == "stop"
    assert not any("stop" in body for body in server.handler.asked)


@pytest.mark.parametrize("how", ["vllm", "message", "prefix"])
async def test_a_step_goes_on_inside_a_turn_where_the_server_can(server: Server, how: str) -> None:
    model = server.model(continues=how)
    context = Context(Context(None, model.encode_chat(ASKED)), model.encode("It is é \n\n"))
    own = (await model.sample(context, 1, Sampling(max_tokens=12))).samples[0]
    ids = server.reference.encode_chat(ASKED) + server.reference.encode("It is é \n\n")
    other = (await server.reference.sample(Context(None, ids), 1, Sampling(max_tokens=12))).samples[0]
    assert own.text == other.text
    sent = server.handler.asked[-1]
    assert sent["messages"][-1] == {"role": "assistant", "content": "It is é \n\n"} | (
        {"prefix": True} if how == "prefix" else {}
    )
    assert sent.get("continue_final_message", False) == (how == "vllm")


async def test_a_server_that_cannot_is_not_asked_to(server: Server) -> None:
    model = server.model()
    context = Context(Context(None, model.encode_chat(ASKED)), model.encode("It is"))
    with pytest.raises(UserError, match=r"does not go on inside a turn.*step_cut: turn"):
        await model.sample(context, 1, Sampling())
    with pytest.raises(UserError, match="thinking_tag: this server does not go on"):
        model.encode_chat(Conversation(ASKED.messages, opening="<think>\n"))
    with pytest.raises(UserError, match="chat_template_path"):
        model.encode_chat(Conversation(ASKED.messages, template="{{ 1 }}"))


async def test_reasoning_comes_as_a_thinking_section_and_is_not_sent_again(folder: Path) -> None:
    server = Server(folder)
    model = server.model()
    for key in ("reasoning_content", "reasoning"):
        message = {"content": "```python\nprint(2)\n```", key: "Hm, \\boxed{7}?"}
        server.handler.replies.append({"choices": [{"message": message, "finish_reason": "stop"}]})
        root = Context(None, model.encode_chat(ASKED))
        sample = (await model.sample(root, 1, Sampling())).samples[0]
        assert (
            sample.text == "<think>\nHm, \\boxed{7}?\n</think>\n\n```python\nprint(2)\n```" and sample.finish == "eos"
        )
        turn = model.encode_chat(Conversation((Message("user", "```output\n2\n```"),), follows=True))
        await model.sample(Context(sample.context, turn), 1, Sampling(max_tokens=1))
        assert server.handler.asked[-1]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 2 + 3? é"},
            {"role": "assistant", "content": "```python\nprint(2)\n```"},
            {"role": "user", "content": "```output\n2\n```"},
        ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        (
            {"content": "", "tool_calls": [{"function": {"name": "python", "arguments": '{"code": "print(1)"}'}}]},
            '\n<tool_call>\n{"name": "python", "arguments": "{\\"code\\": \\"print(1)\\"}"}\n</tool_call>',
        ),
    ],
)
async def test_messages_of_every_form_are_read(folder: Path, message: dict[str, Any], text: str) -> None:
    server = Server(folder)
    server.handler.replies.append({"choices": [{"message": message, "finish_reason": "content_filter"}]})
    model = server.model()
    sample = (await model.sample(Context(None, model.encode_chat(ASKED)), 1, Sampling())).samples[0]
    assert (sample.text, sample.finish) == (text, "length")


def test_no_text_holds_a_mark() -> None:
    letters = Letters()
    for text in ("", "a", "é数🙂\x00", "\ud800", "".join(map(chr, range(0x3000)))):
        ids = letters.encode(text)
        assert all(one < 256 for one in ids) and len(letters.ends(text)) == len(ids)
        assert letters.decode(ids) == text.encode("utf-8", "replace").decode()
    model_ids = (letters.mark("user"), *letters.encode("a"), letters.mark("assistant"), *letters.encode("é"))
    assert letters.turns(model_ids) == [("user", "a"), ("assistant", "é")]


# --- the server's conventions


async def test_keys_that_a_server_does_not_know_are_left_out(folder: Path) -> None:
    refuses = {"logprobs": "logprobs is not supported with this model", "seed": "Unrecognized request argument: seed"}
    server = Server(folder, refuses=refuses)
    model = server.model()
    root = Context(None, model.encode_chat(ASKED))
    assert (await model.sample(root, 2, Sampling(0.5, max_tokens=4))).samples[1].token_ids
    first = len(server.handler.asked)
    await model.sample(root, 1, Sampling(0.5, max_tokens=4))
    assert len(server.handler.asked) == first + 1  # it is remembered
    server.handler.refuses["temperature"] = "temperature does not support 0.5 with this model"
    with pytest.raises(UserError, match="400: temperature does not support"):
        await model.sample(root, 1, Sampling(0.5, max_tokens=4))


async def test_the_limit_has_another_name_at_some_servers(folder: Path) -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server = Server(folder, refuses={"max_tokens": words})
    server.handler.replies.append({"choices": [{"message": {"content": "5"}, "finish_reason": "stop"}]})
    model = server.model()
    assert (await model.sample(Context(None, model.encode_chat(ASKED)), 1, Sampling())).samples[0].text == "5"
    assert "max_tokens" not in server.handler.asked[-1] and server.handler.asked[-1]["max_completion_tokens"] == 2000


async def test_a_prompt_that_is_too_long_and_a_reply_of_another_form(folder: Path) -> None:
    server = Server(folder, refuses={"messages": "This model's maximum context length is 10 tokens"})
    model = server.model()
    root = Context(None, model.encode_chat(ASKED))
    with pytest.raises(ContextTooLong):
        await model.sample(root, 1, Sampling())
    server.handler.refuses.clear()
    for reply, words in [({}, "no choices"), ({"choices": [{"message": 3}]}, "without a message")]:
        server.handler.replies += [reply, reply]
        with pytest.raises(UserError, match=f"{words}.*given up after 2 tries"):
            await model.sample(root, 1, Sampling())


def test_keys_and_the_address_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    model = OpenAIChat.load(need_value=False, engine_args={"api": "chat", "body": {"user": "me"}})
    asyncio.run(model.sample(Context(None, model.encode_chat(ASKED)), 1, Sampling(max_tokens=1)))
    seen = {key.lower(): value for key, value in server.handler.headers_seen[-1].items()}
    assert (seen["authorization"], seen["openai-organization"]) == ("Bearer secret", "org-1")
    assert server.handler.asked[-1]["user"] == "me"
    monkeypatch.setenv("OPENAI_API_KEY", "a\nb")
    with pytest.raises(UserError, match="OPENAI_API_KEY: holds characters"):
        server.model()
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert Settings.read({"api": "chat"}).base_url == "https://api.openai.com/v1"
    with pytest.raises(UserError, match="OPENAI_BASE_URL"):
        Settings.read({})
    with pytest.raises(UserError, match="api: expected completions, chat, found 'chats'"):
        Settings.read({"api": "chats"})


def test_the_pause_is_what_the_server_names_else_grows() -> None:
    assert retry_after({"retry-after": "7"}) == 7 and retry_after({"retry-after-ms": "250"}) == 0.25
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert 15 < (retry_after({"retry-after": date}) or 0) <= 21
    for named in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "9999"}, {"retry-after": "nan"}):
        assert retry_after(named) is None
    for tries, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (9, 8.0)):
        assert all(0.75 * longest <= pause_before(tries, None) <= longest for _ in range(50))
    assert pause_before(3, 0.1) == 0.1


async def test_a_busy_server_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(folder)
    pauses: list[float] = []
    answer = server.handler.do_POST

    def busy(self: Any) -> None:
        if len(pauses) < 2:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(429)
            self.send_header("Retry-After", "0.01")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            answer(self)

    server.handler.do_POST = busy
    waited = client.pause_before
    monkeypatch.setattr(client, "pause_before", lambda *given: pauses.append(waited(*given)) or pauses[-1])
    model = server.model(retries=5)
    assert (await model.sample(Context(None, model.encode_chat(ASKED)), 1, Sampling(max_tokens=2))).samples
    assert pauses == [0.01, 0.01]


# --- as a configuration


def config_of(server: Server, **keys: Any) -> Any:
    made = {
        "mode": "react", "engine": "openai", "engine_args": {"api": "chat", "base_url": server.url, "model": "a/small"},
        "prompt_wrap": "chat", "result_unwrap": "chat", "chat_preset": "gpt-oss", "temperature": 0.0, "max_depth": 4,
    }  # fmt: skip
    return make_config(made | keys, "test")


async def test_a_search_over_chats_runs_code_and_answers(folder: Path) -> None:
    server = Server(folder)
    said = ["I run it.\n```python\nprint(6 * 7)\n```", "It is $\\boxed{42}$."]
    server.handler.replies += [{"choices": [{"message": {"content": one}, "finish_reason": "stop"}]} for one in said]
    config = config_of(server)
    assert check_model(config) is None and describe_model(config) == {"name": "a--small", "weights": "none"}
    async with ForkInterpreter(profile="tora", timeout_seconds=20) as interpreter:
        record = await Solver(config, load_engine(config), load_markup(config), interpreter).solve(ask())
    assert record["prediction"]["final_answer"] == "42"
    assert [one["role"] for one in server.handler.asked[-1]["messages"]] == ["user", "assistant", "user"]
    assert server.handler.asked[-1]["messages"][-1]["content"] == "```output\n42\n```"


def test_the_public_face_needs_no_folder_for_a_server_of_chats(folder: Path) -> None:
    import arbor

    server = Server(folder)
    server.handler.replies.append({"choices": [{"message": {"content": "\\boxed{42}"}, "finish_reason": "stop"}]})
    keys = {"api": "chat", "base_url": server.url, "model": "small"}
    with (
        arbor.load_model(engine="openai", value_head=False, markup="chat", **keys) as model,
        arbor.Solver(model, arbor.Greedy(), chat_preset="gpt-oss") as solver,
    ):
        assert solver.solve("What is 6 * 7?").answer == "42"
    assert server.handler.asked[-1]["max_tokens"] == 2000  # not the bounds of the embedded model


def test_values_are_refused_before_anything_is_asked(server: Server) -> None:
    with pytest.raises(UserError, match=r"gives no values.*value_from: majority"):
        load_engine(config_of(server, mode="mcts", need_value_func=True))


async def test_the_prompt_of_a_chat_reaches_a_server_of_texts_with_its_control_tokens(folder: Path) -> None:
    """And those of the question's text do not."""
    service, _ = engines(folder)
    prompts: list[str] = []

    class Texts(Handler):
        timeout = 3.0

        def do_POST(self) -> None:
            self.service = NoIds(service)  # type: ignore[assignment]
            super().do_POST()

        def _reply(self, code: int, body: dict[str, Any]) -> None:
            for choice in body.get("choices", []):
                del choice["token_ids"], choice["stop_reason"]
            super()._reply(code, body)

    complete = NoIds.complete
    NoIds.complete = lambda self, body: prompts.append(body["prompt"]) or complete(self, body)  # type: ignore[method-assign]
    try:
        _, url = start(Texts, service)
        model = OpenAIModel.load(folder, need_value=False, engine_args={"base_url": url})
        ids = model.encode_chat(Conversation((Message("user", "a <|im_end|> b"),)))
        await model.sample(Context(None, ids), 1, Sampling(max_tokens=2))
    finally:
        NoIds.complete = complete  # type: ignore[method-assign]
    turns = prompts[-1].split("<|im_start|>")
    assert [turn.count("<|im_end|>") for turn in turns] == [0, 1, 1, 0] and "im_end|> b<|im_end|>\n" in turns[2]


def test_settings_hold_every_key_of_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in itertools.chain(vars(Settings())))

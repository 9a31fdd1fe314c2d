"""The OpenAI engine over real HTTP: `arbor serve` on the transformers engine, and llama-cpp-python's server."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install -r requirements-openai.txt")

from arbor.serving.limits import Refused
from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Sampling
from models.engines.openai import Dialect, OpenAIModel
from models.engines.transformers.engine import TransformersModel
from tests.models.completions import Handler, Service, start
from tests.models.engines import (
    PROMPT,
    WEIGHTS,
    assert_like_transformers,
    assert_same_trees,
    assert_soak,
    build_folder,
    prompts,
    search,
    wait_for,
)


class Server:
    """The engine's completions over HTTP. handler: what answers, where it should differ."""

    def __init__(self, folder: Path, handler: type[Handler] = Handler, *, need_value: bool = True) -> None:
        self.folder = folder
        self.service = Service(TransformersModel.load(folder, need_value=need_value), "tiny")
        self.http, self.url = start(handler, self.service)

    def model(self, *, need_value: bool = True, **changes: Any) -> OpenAIModel:
        return OpenAIModel.load(self.folder, need_value=need_value, engine_args={"base_url": self.url} | changes)

    def post(self, body: Any) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(self.url + "/completions", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_folder(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder)
    yield made
    made.http.shutdown()


class TextOnly(Handler):
    """As llama-cpp-python's server: no token ids in or out, no values, no names of stop strings."""

    def _reply(self, code: int, body: dict[str, Any]) -> None:
        body.pop("value", None)
        for choice in body.get("choices", []):
            del choice["token_ids"], choice["stop_reason"]
        super()._reply(code, body)

    def do_POST(self) -> None:
        self.service = NoIds(self.service)  # type: ignore[assignment]
        super().do_POST()


class NoIds:
    def __init__(self, service: Service) -> None:
        self.service = service

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(body["prompt"], str):
            raise Refused(400, "prompt: expected a text")
        return self.service.complete(body)


class Busy(Handler):
    """Refuses two requests of three, as a server under load does."""

    count = itertools.count()

    def do_POST(self) -> None:
        if next(self.count) % 3:
            self.rfile.read(int(self.headers["content-length"]))
            self._fail(503, "busy")
        else:
            super().do_POST()


class Keyed(Handler):
    def do_GET(self) -> None:
        if self.headers.get("authorization") == "Bearer secret":
            super().do_GET()
        else:
            self._fail(401, "wrong key")


async def test_token_ids_values_and_logprobs_are_those_of_the_engine_behind(server: Server) -> None:
    model = server.model()
    assert model.dialect == Dialect(ids=True, extras=True)
    await assert_like_transformers(model, TransformersModel.load(server.folder))


async def test_the_same_search_gives_the_same_trees_at_temperature_zero() -> None:
    model = Server(WEIGHTS).model()
    for name in ("sbs_3_5", "mcts"):
        own = await search(model, name, 4, temperature=0.0, iterations=8)
        other = await search(TransformersModel.load(WEIGHTS), name, 4, temperature=0.0, iterations=8)
        assert_same_trees(own, other)


async def test_a_sample_depends_on_its_key_and_its_index(server: Server) -> None:
    model = server.model()
    root = Context(None, model.encode_prompt(PROMPT))
    params = Sampling(1.0, max_tokens=20, key=(1, "0.1"))
    four, two = await asyncio.gather(model.sample(root, 4, params), model.sample(root, 2, params))
    assert [sample.token_ids for sample in four.samples[:2]] == [sample.token_ids for sample in two.samples]
    assert len({sample.token_ids for sample in four.samples}) == 4


async def test_a_server_that_speaks_text_only_serves_as_policy(folder: Path) -> None:
    model, reference = Server(folder, TextOnly).model(need_value=False), TransformersModel.load(folder)
    assert model.dialect == Dialect(ids=False, extras=False)
    params = Sampling(max_tokens=12, stop=("a", "e"))
    for text in ("<question> What is 2 + 3? </question>\n", "abc 1"):
        root = Context(None, model.encode_prompt(text))
        own, other = await asyncio.gather(model.sample(root, 1, params), reference.sample(root, 1, params))
        assert own.value is None and own.samples[0].text == other.samples[0].text
        assert own.samples[0].logprob == pytest.approx(other.samples[0].logprob, abs=1e-3)
        assert model.tokenizer.decode(own.samples[0].token_ids) == own.samples[0].text
    with pytest.raises(UserError, match="gives no values"):
        await model.evaluate(root)
    with pytest.raises(UserError, match="value_from: majority"):
        Server(folder, TextOnly).model()


async def test_two_hundred_requests_in_flight_and_cancellations(server: Server) -> None:
    await assert_soak(server.model(in_flight=16), TransformersModel.load(server.folder))


async def test_a_busy_server_is_asked_again(folder: Path) -> None:
    busy = Server(folder, Busy)
    Busy.count = itertools.count()
    model = busy.model(in_flight=1)
    roots = prompts(model, 2)
    values = [await model.evaluate(root) for root in roots]
    reference = TransformersModel.load(folder)
    assert values == pytest.approx([await reference.evaluate(root) for root in roots], abs=1e-3)
    Busy.count = itertools.count(1)
    with pytest.raises(UserError, match=r"503: busy \(given up after 1 tries\)"):
        await busy.model(in_flight=1, retries=0).evaluate(roots[0])


def test_what_is_wrong_is_refused_in_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="base_url: expected the server's address"):
        OpenAIModel.load(server.folder)
    with pytest.raises(UserError, match="openai has no 'url'"):
        server.model(url=1)
    with pytest.raises(UserError, match="in_flight: expected int, found 'many'"):
        server.model(in_flight="many")
    with pytest.raises(UserError, match=r"model 'other'.* serves tiny"):
        server.model(model="other")
    with pytest.raises(UserError, match="given up after 1 tries") as refused:
        server.model(base_url="http://127.0.0.1:9/v1", retries=0)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="no such folder"):
        OpenAIModel.load(tmp_path / "none", engine_args={"base_url": server.url})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    keyed = Server(server.folder, Keyed)
    with pytest.raises(UserError, match="401: wrong key; set OPENAI_API_KEY"):
        keyed.model()
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    keyed.model()


async def test_a_prompt_that_is_too_long_is_told_apart_from_other_refusals(server: Server) -> None:
    model = server.model()
    with pytest.raises(ContextTooLong):
        await model.sample(Context(None, (5,) * 512), 1, Sampling(max_tokens=4))
    with pytest.raises(ContextTooLong):
        await server.model(window=40).sample(Context(None, (5,) * 40), 1, Sampling(max_tokens=4))
    expansion = await server.model(window=40).sample(Context(None, (5,) * 30), 1, Sampling(max_tokens=99))
    assert len(expansion.samples[0].token_ids) <= 10


def test_the_server_continues_prompts_from_kept_entries(server: Server) -> None:
    totals = server.service.model.totals
    _, first = server.post({"prompt": PROMPT * 3, "max_tokens": 8, "temperature": 0})
    ids = list(server.model().encode_prompt(PROMPT * 3)) + first["choices"][0]["token_ids"]
    before = totals.tokens_computed
    _, second = server.post({"prompt": [*ids, 7, 8], "max_tokens": 1, "n": 2, "temperature": 0})
    assert totals.tokens_computed - before <= 3
    assert first["usage"]["completion_tokens"] >= 8 and len(second["choices"]) == 2
    assert -1 < second["value"] < 1


class Odd(Handler):
    """Says what `replies` holds, one after the other, over what would be right."""

    replies: list[Any]

    def _reply(self, code: int, body: dict[str, Any]) -> None:
        changed: Any = {}
        if self.replies and "choices" in body:
            changed = self.replies.pop()
        if isinstance(changed, dict):
            choice = body["choices"][0] | changed.get("choice", {}) if "choices" in body else None
            changed = body | ({"choices": [choice]} if choice else {}) | changed
        super()._reply(code, changed)


def odd(folder: Path, **keys: Any) -> tuple[OpenAIModel, Context, list[Any]]:
    """A model over a server that says odd things, a prompt, and the list of these things."""
    replies: list[Any] = []
    model = Server(folder, type("OddOne", (Odd,), {"replies": replies})).model(**keys)
    return model, Context(None, model.encode_prompt(PROMPT)), replies


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ([], "no choices"),
        ({"choices": []}, "no choices"),
        ({"choice": {"text": None}}, "without a text"),
        ({"choice": {"token_ids": "12"}}, "token_ids"),
        ({"choice": {"token_ids": [-1]}}, "token_ids"),
        ({"choice": {"logprobs": {"token_logprobs": [float("nan")]}}}, "token_logprobs"),
        ({"choice": {"finish_reason": "abort"}}, "'abort'"),
        ({"usage": 3}, "usage"),
    ],
)
async def test_a_reply_of_another_form_is_no_sample(folder: Path, reply: Any, words: str) -> None:
    model, root, replies = odd(folder, retries=1)
    replies.append(reply)
    right = await model.sample(root, 1, Sampling(max_tokens=4))
    assert right.samples[0].token_ids and not replies
    replies += [reply, reply]
    with pytest.raises(UserError, match=words) as refused:
        await model.sample(root, 1, Sampling(max_tokens=4))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("value", "read"), [(0, 0.0), (1, 1.0), (62.7, None), (float("nan"), None), ("0.5", None)])
async def test_a_value_is_a_number_from_minus_one_to_one(folder: Path, value: Any, read: float | None) -> None:
    model, root, replies = odd(folder)
    replies.append({"value": value})
    if read is None:
        with pytest.raises(UserError, match="not from -1 to 1"):
            await model.evaluate(root)
    else:
        assert await model.evaluate(root) == read


class BusyOnce(Handler):
    """Refuses the first request of all, as a server does that is still warming up."""

    left = 1

    def do_POST(self) -> None:
        if BusyOnce.left:
            BusyOnce.left -= 1
            self.rfile.read(int(self.headers["content-length"]))
            self._fail(503, "loading")
        else:
            super().do_POST()


def test_a_server_that_is_busy_at_the_start_is_not_taken_for_one_without_token_ids(folder: Path) -> None:
    assert Server(folder, BusyOnce).model().dialect == Dialect(ids=True, extras=True)


def test_what_is_wrong_with_an_address_or_a_key_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, words in (
        (server.url.removesuffix("/v1"), "/models: 404: .*base_url ends with the version"),
        ("http://localhost:port/v1", "base_url 'http://localhost:port/v1': Port could not"),
        ("http://localhost:99999/v1", "Port out of range 0-65535"),
        ("http://local\x07host/v1", "base_url 'http://local.*': Invalid"),
    ):
        with pytest.raises(UserError, match=words):
            server.model(base_url=url, retries=0)
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(UserError, match="OPENAI_API_KEY: "):
        server.model()


async def test_llama_cpps_own_server_serves_as_policy(folder: Path, tmp_path: Path) -> None:
    for module in ("llama_cpp", "gguf", "uvicorn", "fastapi", "sse_starlette", "starlette_context"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -r requirements-llama.txt 'llama-cpp-python[server]'")
    from models.engines.llama_cpp.export import export

    path = export(folder, tmp_path, ["F32"])[0]
    command = ["-m", "llama_cpp.server", "--model", str(path), "--port", "18765", "--logits_all", "true"]
    process = subprocess.Popen([sys.executable, *command, "--n_threads", "1"], stderr=subprocess.DEVNULL)
    try:
        await asyncio.to_thread(wait_for, "http://127.0.0.1:18765/v1/models")
        args = {"base_url": "http://127.0.0.1:18765/v1", "in_flight": 1}
        model = OpenAIModel.load(folder, need_value=False, engine_args=args)
        assert not model.dialect.ids
        reference = TransformersModel.load(folder)
        root = Context(None, model.encode_prompt(PROMPT))
        own, other = [await engine.sample(root, 1, Sampling(max_tokens=8)) for engine in (model, reference)]
        assert own.samples[0].text == other.samples[0].text
    finally:
        process.terminate()
        process.wait(20)


async def test_log_probabilities_of_single_tokens_are_those_of_the_network(server: Server) -> None:
    direct, params = TransformersModel.load(server.folder), Sampling(temperature=0.8, max_tokens=9, key=(3,))
    ids = direct.encode_prompt(PROMPT)
    (sample,) = (await direct.sample(Context(None, ids), 1, params)).samples
    (served,) = (await server.model().sample(Context(None, ids), 1, params)).samples
    for one in (sample, served):
        assert len(one.logprobs) == len(one.token_ids) > 1
    prompt = ids + sample.token_ids[:4]
    for at in range(4):  # one token after the given ones, drawn greedily where it is the same
        _, reply = server.post({"prompt": list(ids + sample.token_ids[:at]), "max_tokens": 1, "temperature": 0})
        (choice,) = reply["choices"]
        best = choice["logprobs"]["token_logprobs"][0]
        assert sample.logprobs[at] <= best + 1e-5
        if choice["token_ids"] == [prompt[len(ids) + at]]:
            assert sample.logprobs[at] == pytest.approx(best, abs=1e-5)
    if sample.finish != "eos":
        assert sum(sample.logprobs) == pytest.approx(sample.logprob)

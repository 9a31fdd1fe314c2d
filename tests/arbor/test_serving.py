"""`arbor serve` on the embedded model, asked by OpenAI's own client, and by clients that behave badly."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="openai is not installed: pip install -r requirements-dev.txt")
pytest.importorskip("starlette", reason="starlette is not installed: pip install -r requirements-serve.txt")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -r requirements-serve.txt")

import openai

from arbor.assembly import describe, load_model, open_solver
from arbor.commands.serve import command, listen, read_keys
from arbor.serving.asked import read_asked
from arbor.serving.limits import Limits
from arbor.serving.process import make_server
from arbor.serving.service import Service
from mcts.errors import UserError
from mcts.question import Question
from models.engines.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/tiny/sbs_3_5.yaml"
GARDEN = "A garden is 7 m longer than it is wide. Its area is 744 square metres. How wide is it?"
QUESTIONS = [json.loads(line)["question"] for line in (ROOT / "models/tiny/data/heldout.jsonl").open()][:24]
LONG = {"model": "arbor-mcts-4000", "max_total_time": 60, "stop_when_decided": False, "descend": True}


class Server:
    """`arbor serve` in a thread of this process."""

    def __init__(self, limits: Limits, keys: tuple[str, ...] = (), model: Any = None) -> None:
        self.config = load_config(CONFIG)
        self.model = model or load_model(self.config)
        self.service = Service(self.config, self.model, "weights", limits)
        self.listening = listen("127.0.0.1", 0, False)
        self.port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = make_server(self.service, keys, 1)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.listening]}, daemon=True)
        self._thread.start()

    def client(self, **settings: Any) -> Any:
        return openai.OpenAI(**{"api_key": "none", "base_url": self.url + "/v1", "max_retries": 0} | settings)

    def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, dict[str, Any]]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, raw, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            return reply.read().decode()

    def wait(self, running: int, waiting: int = 0, seconds: float = 20) -> None:
        """Until so many requests are computed and wait."""
        gate, until = self.service.gate, time.monotonic() + seconds
        while (gate.running, gate.waiting) != (running, waiting):
            assert time.monotonic() < until, f"{gate.running} running, {gate.waiting} waiting"
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.service.close()


@contextmanager
def serving(limits: Limits, keys: tuple[str, ...] = (), model: Any = None) -> Iterator[Server]:
    server = Server(limits, keys, model)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(Limits(in_flight=8, queue=500, body_bytes=200_000, read_seconds=1.0, write_seconds=1.0)) as made:
        yield made


def chat(question: str, model: str = "arbor", **keys: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **keys}


def raw_request(body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    raw = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw


def test_the_answer_and_the_tree_are_those_of_the_same_search_without_a_server(server: Server) -> None:
    async def search() -> dict[str, Any]:
        config, model = server.config, load_model(server.config)
        async with open_solver(config, model, describe(config), 0) as solver:
            return await solver.solve(Question(0, {"question": GARDEN}, ""))

    record = asyncio.run(search())
    for name in ("arbor", "arbor-sbs-3-5"):
        reply = server.client().chat.completions.create(**chat(GARDEN, name), extra_body={"tree": True})
        about: Any = reply.arbor  # type: ignore[attr-defined]
        assert about["tree"]["react"] == record["react"]
        assert about["answer"] == record["prediction"]["final_answer"] == "24"
        assert reply.choices[0].message.content.endswith("\\boxed{24}")
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage.completion_tokens == record["meta"]["tokens_generated"]
        assert reply.usage.prompt_tokens == len(record["react"]["0"]["token_ids"])
        assert 0 < reply.usage.tokens_computed <= reply.usage.total_tokens  # type: ignore[attr-defined]
    assert "tree" not in server.post(chat(GARDEN))[1]["arbor"]


@pytest.mark.parametrize("model", ["arbor-greedy", "arbor-maj-5", "arbor-sbs-1-5", "arbor-sbs-3-5", "arbor-mcts-12"])
def test_a_stream_is_the_answer_step_by_step(server: Server, model: str) -> None:
    client = server.client()
    for question in QUESTIONS[:6]:
        whole = client.chat.completions.create(**chat(question, model))
        about: Any = whole.arbor  # type: ignore[attr-defined]
        chunks = list(
            client.chat.completions.create(**chat(question, model), stream=True, stream_options={"include_usage": True})
        )
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(texts) == whole.choices[0].message.content
        steps = [step["step"] for chunk in chunks if "step" in (step := getattr(chunk, "arbor", {}))]
        assert [step["tag"] for step in steps] == [step["tag"] for step in about["steps"]]
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[-2].arbor["answer"] == about["answer"]  # type: ignore[attr-defined]


def test_steps_come_while_the_search_goes_on(server: Server) -> None:
    """A chain's first step does not wait for its last."""
    arrivals: list[int] = []
    for chunk in server.client().chat.completions.create(**chat(GARDEN, "arbor-greedy"), stream=True):
        if "step" in getattr(chunk, "arbor", {}):
            arrivals.append(server.service.gate.running)
    assert len(arrivals) > 2 and arrivals[0] == 1


def test_completions_take_a_question_as_a_prompt(server: Server) -> None:
    client = server.client()
    whole = client.completions.create(model="arbor-sbs-1-5", prompt=GARDEN)
    texts = [
        chunk.choices[0].text for chunk in client.completions.create(model="arbor-sbs-1-5", prompt=GARDEN, stream=True)
    ]
    assert "".join(texts) == whole.choices[0].text and "\\boxed{24}" in whole.choices[0].text


async def test_the_asynchronous_client_asks_many_at_once(server: Server) -> None:
    client = openai.AsyncOpenAI(api_key="none", base_url=server.url + "/v1", max_retries=0)
    alone = [server.post(chat(question, "arbor-sbs-1-5"))[1]["arbor"]["answer"] for question in QUESTIONS]
    replies = await asyncio.gather(
        *(client.chat.completions.create(**chat(question, "arbor-sbs-1-5")) for question in QUESTIONS * 2)
    )
    assert [reply.arbor["answer"] for reply in replies] == alone * 2  # type: ignore[attr-defined]
    await client.close()


def test_parameters_of_the_search_are_taken_from_extra_body(server: Server) -> None:
    def about(model: str, **keys: Any) -> Any:
        return server.client().chat.completions.create(**chat(GARDEN, model), extra_body=keys | {"tree": True})

    assert about("arbor-mcts-40", iterations=3).usage.simulations <= 3
    assert about("arbor-mcts-7-2").arbor["tree"]["meta"]["config"]["n_generate_sample"] == 2
    assert about("arbor-maj-3").arbor["candidates"] <= 3
    other = about("arbor-sbs-3-5", seed=12).arbor["tree"]
    assert other["meta"]["seed"] == 12 and other["react"] != about("arbor-sbs-3-5").arbor["tree"]["react"]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": GARDEN}]}]
    ignored = server.post({"model": "arbor-greedy", "user": "me", "messages": messages})[1]["arbor"]["ignored"]
    assert ignored == ["messages[0]", "user"]


def test_the_engine_answers_under_its_own_name_with_values(server: Server) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()][:2] == ["weights", "arbor"]
    assert client.models.retrieve("arbor-sbs-2-7").id == "arbor-sbs-2-7"
    reply: Any = client.completions.create(model="weights", prompt=GARDEN, max_tokens=8, temperature=0, n=2)
    assert -1 < reply.value < 1 and len(reply.choices) == 2
    choice = reply.choices[0]
    assert sum(choice.logprobs.token_logprobs) == pytest.approx(choice.logprob, abs=1e-4)
    assert all(-50 < one < 0 for one in choice.logprobs.token_logprobs)
    assert reply.usage.completion_tokens == 16
    with pytest.raises(openai.BadRequestError, match="no chat of its own"):
        client.chat.completions.create(**chat(GARDEN, "weights"))


async def test_the_openai_engine_searches_with_the_served_model(server: Server) -> None:
    """Without a name it takes the engine, not one of the searches."""
    from models.engines.openai import OpenAIModel

    folder = str(server.config.model_dir)
    outside = OpenAIModel.load(folder, need_value=True, engine_args={"base_url": server.url + "/v1"})
    config = server.config
    records = []
    for model in (outside, load_model(config)):
        async with open_solver(config, model, {}, 0) as solver:
            records.append(await solver.solve(Question(0, {"question": GARDEN}, "")))
    answers = [record["prediction"]["final_answer"] for record in records]
    assert answers[1] == "24" and answers[0]
    values = [record["react"]["0.0"]["value"] for record in records]
    assert all(-1 < value < 1 for value in values)


BAD: list[tuple[int, str, Any]] = [
    (400, "JSON object", []),
    (400, "messages", {"model": "arbor"}),
    (400, "messages", chat("")),
    (400, "messages", chat(" \n")),
    (400, "one question", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    (400, "type text", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    (400, "surrogate", chat("\ud800")),
    (404, "not served", chat(GARDEN, "gpt-4")),
    (404, "not served", chat(GARDEN, "arbor-sbs-0-5")),
    (404, "not served", chat(GARDEN, "arbor-sbs-3")),
    (404, "not served", chat(GARDEN, "arbor-mcts-9999999")),
    (404, "not served", {"model": 5, "messages": [{"role": "user", "content": "a"}]}),
    (400, "at most 4096", chat(GARDEN, "arbor-mcts-100000")),
    (400, "at most 4096", chat(GARDEN, "arbor-maj-5", n_runs=10**9)),
    (400, "did you mean", chat(GARDEN, iteratons=4)),
    (400, "unknown key", chat(GARDEN, model_dir="/etc")),
    (400, "unknown key", chat(GARDEN, sandbox="off")),
    (400, "unknown key", chat(GARDEN, prompt_path="/etc/passwd")),
    (400, "unknown key", chat(GARDEN, few_shot_path="/etc/passwd")),
    (400, "unknown key", chat(GARDEN, engine_args={"threads": 4})),
    (400, "unknown key", chat(GARDEN, code_timeout=1000)),
    (400, "temperature", chat(GARDEN, temperature=-1)),
    (400, "temperature", chat(GARDEN, temperature="hot")),
    (400, "temperature", chat(GARDEN, temperature=10**400)),
    (400, "n: a search", chat(GARDEN, n=3)),
    (400, "logprobs", chat(GARDEN, logprobs=True)),
    (400, "tools", chat(GARDEN, tools=[{"type": "function"}])),
    (400, "response_format", chat(GARDEN, response_format={"type": "json_object"})),
    (400, "stream", chat(GARDEN, stream="yes")),
    (400, "stream_options", chat(GARDEN, stream_options=3)),
    (400, "seed", chat(GARDEN, seed="x")),
    (400, "max_depth", chat(GARDEN, max_depth=0)),
]


@pytest.mark.parametrize(("code", "words", "body"), BAD)
def test_bad_requests_get_one_line(server: Server, code: int, words: str, body: Any) -> None:
    status, reply = server.post(body)
    assert status == code, reply
    assert words in reply["error"]["message"] and "\n" not in reply["error"]["message"]
    assert len(reply["error"]["message"]) < 420
    assert server.post(chat("What is 1 + 1?", "arbor-greedy"))[0] == 200


BAD_COMPLETIONS: list[dict[str, Any]] = [
    {"prompt": ""},
    {"prompt": [1, -2]},
    {"prompt": [True]},
    {"prompt": [1 << 40]},
    {"prompt": [1, 768]},
    {"prompt": "a", "n": 0},
    {"prompt": "a", "max_tokens": "many"},
    {"prompt": "a", "temperature": -1},
    {"prompt": "a", "temperature": True},
    {"prompt": "a", "top_p": 2},
    {"prompt": "a", "stop": [""]},
    {"prompt": "a", "stop": 3},
    {"prompt": "a", "stream": True},
    {"prompt": "a", "echo": True},
    {"prompt": "a", "model": "another"},
    {"prompt": "a", "seed": 1.5},
    {"prompt": "a", "temperature": 10**400},
    {"prompt": "a", "n": "a" * 100_000},
    {"prompt": [5] * 4000},
]


@pytest.mark.parametrize("body", BAD_COMPLETIONS)
def test_bad_requests_to_the_engine_get_one_line_too(server: Server, body: dict[str, Any]) -> None:
    status, reply = server.post({"model": "weights", **body}, "/v1/completions")
    assert status in (400, 404), reply
    assert "\n" not in reply["error"]["message"] and len(reply["error"]["message"]) < 420
    good = {"model": "weights", "prompt": "a", "max_tokens": 1, "stop": "b", "user": "me", "seed": None}
    assert server.post(good, "/v1/completions")[0] == 200


@pytest.mark.parametrize(
    "raw", [b" ", b"no json", b"[" * 100_000, b"\xff\xfe", b'{"model"', b'{"temperature": NaN}', b"1"]
)
def test_bodies_that_are_no_json_object(server: Server, raw: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert server.post(raw, path)[0] == 400


def test_a_question_that_fills_the_window_is_told_apart(server: Server) -> None:
    status, reply = server.post(chat("1 + " * 3000))
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    with pytest.raises(openai.APIError, match="too long"):
        list(server.client().chat.completions.create(**chat("1 + " * 3000), stream=True))


def test_other_routes(server: Server) -> None:
    for path in ("/", "/v1", "/v1/models/none", "/v1/chat/completions"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.get(path)
        assert refused.value.code in (404, 405) and "error" in json.load(refused.value)


def test_bodies_that_are_too_long_or_too_slow(server: Server) -> None:
    assert server.post(chat("x" * 300_000))[0] == 413
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for pieces, code in (([b"8000\r\n" + b" " * 0x8000 + b"\r\n"] * 8, b"413"), ([b"1\r\n{\r\n"], b"408")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(head)
            try:
                for piece in pieces:
                    client.sendall(piece)
            except ConnectionError:
                pass
            assert client.recv(4096).split(b" ")[1] == code
    assert server.post(chat("What is 1 + 1?", "arbor-greedy"))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_search(server: Server, stream: bool) -> None:
    path = "/v1/chat/completions"
    before = hung_up(server)
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(raw_request(chat(GARDEN, **LONG | {"iterations": 700, "stream": stream}), path))
    server.wait(running=1)
    if stream:
        assert client.recv(100)
    client.close()
    server.wait(running=0, seconds=5)
    while hung_up(server) == before:
        time.sleep(0.01)


def hung_up(server: Server) -> int:
    return sum(map(int, re.findall(r'arbor_requests_total{.*status="499"} (\d+)', server.get("/metrics"))))


def test_a_slow_reader_holds_no_place_and_is_cut_off(server: Server) -> None:
    """The tree is longer than what the sockets hold."""
    server.listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what is accepted from now on has it, too
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    before = hung_up(server)
    body = chat(GARDEN, "arbor-mcts-80", stream=True, tree=True, temperature=1.3, remove_duplicate=False)
    client.sendall(raw_request(body))
    server.wait(running=1)
    server.wait(running=0, seconds=60)
    until = time.monotonic() + 20
    while hung_up(server) == before:
        assert time.monotonic() < until
        time.sleep(0.05)
    client.close()


def test_keys_are_asked_for(server: Server) -> None:
    with serving(Limits(), keys=("first-key", "second-key"), model=server.model) as guarded:
        for key in ("first-key", "second-key"):
            assert guarded.client(api_key=key).chat.completions.create(**chat(GARDEN, "arbor-greedy")).choices
        for key in ("first-ke", "first-key2", "FIRST-KEY", "x"):
            with pytest.raises(openai.AuthenticationError):
                guarded.client(api_key=key).models.list()
        for header in (
            {},
            {"Authorization": "first-key"},
            {"Authorization": "Basic first-key"},
            {"Authorization": "é"},
        ):
            assert guarded.post(chat(GARDEN), **header)[0] == 401
        assert json.loads(guarded.get("/health"))["status"] == "ok"
        with pytest.raises(urllib.error.HTTPError):
            guarded.get("/metrics")


def test_the_queue_is_bounded_and_waits_for_a_bounded_time(server: Server) -> None:
    limits = Limits(in_flight=1, queue=2, wait_seconds=1.0)
    with serving(limits, model=server.model) as busy:
        clients = []
        for waiting in range(3):
            client = socket.create_connection(("127.0.0.1", busy.port))
            client.sendall(raw_request(chat(GARDEN, **LONG | {"iterations": 700})))
            clients.append(client)
            busy.wait(1, waiting)
        status, reply = busy.post(chat(GARDEN))
        assert (status, reply["error"]["code"]) == (429, "busy")
        clients[2].settimeout(10)
        assert clients[2].recv(4096).split(b" ")[1] == b"503"
        clients[0].close()
        clients[1].close()
        busy.wait(0, 0)
        assert busy.post(chat("What is 1 + 1?", "arbor-greedy"))[0] == 200


def test_counters_in_prometheus_format(server: Server) -> None:
    text = server.get("/metrics")
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) arbor_\w+ .+|arbor_\w+(\{(\w+="[^"\\]*",?)*\})? [0-9.e+]+', line), line
    before = float(re.search(r'arbor_answers_total{answer="found",kind="greedy"} (\d+)', text)[1])  # type: ignore[index]
    server.post(chat(GARDEN, "arbor-greedy"))
    assert f'arbor_answers_total{{answer="found",kind="greedy"}} {before + 1:g}' in server.get("/metrics")


def test_sigterm_lets_what_is_in_flight_finish_and_refuses_what_waits() -> None:
    command = [sys.executable, "-m", "arbor", "serve", "--config", str(CONFIG), "--port", "0", "--in-flight", "1"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2].split("/")[0])
    with (
        socket.create_connection(("127.0.0.1", port)) as first,
        socket.create_connection(("127.0.0.1", port)) as second,
    ):
        first.sendall(raw_request(chat(GARDEN, "arbor-mcts-60", stream=True)))
        assert b"200 OK" in first.recv(200)
        second.sendall(raw_request(chat(GARDEN)))
        while json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/health"))["waiting"] != 1:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        second.settimeout(30)
        assert b"503" in second.recv(200)
        rest = b""
        first.settimeout(60)
        while part := first.recv(65536):
            rest += part
    assert b"data: [DONE]" in rest and b"boxed{24}" in rest
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "terminated" in err and "Traceback" not in err
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port))


def test_several_processes_listen_on_one_port_where_told_to() -> None:
    with listen("127.0.0.1", 0, True) as first:
        port = first.getsockname()[1]
        listen("127.0.0.1", port, True).close()
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: .*in use"):
            listen("127.0.0.1", port, False)


def test_a_place_that_cannot_be_listened_on_is_found_before_the_model_is_loaded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arbor.serving.process.load_model", None)
    words = f"127.0.0.1:{server.port}: .*in use"
    for port, said in ((server.port, words), (99999, "--port 99999: .*from 0 to 65535")):
        with pytest.raises(UserError, match=said):
            command.main(["--config", str(CONFIG), "--port", str(port)], standalone_mode=False)


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARBOR_API_KEY", raising=False)
    assert read_keys(None) == []
    monkeypatch.setenv("ARBOR_API_KEY", " one \n")
    assert read_keys(None) == ["one"]
    path = tmp_path / "keys.txt"
    path.write_text("a b\n\n  c\n")
    assert read_keys(path) == ["a b", "c"]
    path.write_text("\n \n")
    for missing in (path, tmp_path / "none"):
        with pytest.raises(UserError, match=str(missing)):
            read_keys(missing)


def test_what_the_extra_installs_is_named_where_it_is_missing() -> None:
    code = "import sys; sys.modules['starlette'] = None; from arbor.commands import main; main('serve')"
    words = [sys.executable, "-c", code, "--config", str(CONFIG), "--port", "0"]
    refused = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "arbor-search[serve]" in refused.stderr and len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["arbor-greedy", "arbor-maj-5"])
def test_what_reads_no_value_asks_no_head(name: str) -> None:
    asked = read_asked({"model": name, "prompt": GARDEN}, load_config(CONFIG), Limits(), chat=False)
    assert load_config(CONFIG).need_value_func and not asked.config.need_value_func

"""The endpoint under load: clients that ask one question after another of the embedded model, streamed and not.

python -m scripts.bench.serving --clients 200 --seconds 120 [--model arbor-sbs-1-5] [--proxy]

The server is a process of its own on this machine, asked over loopback by OpenAI's asynchronous client. Every reply is
checked: it has an answer or says why not, and the same question has the same answer each time.

--proxy is the rival: the same search in a proxy that asks an engine behind HTTP, which keeps no key/value entries
between requests, as proxies that search over a chat API do.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai

from eval.data.questions import read_questions
from eval.report.table import text_table
from scripts.bench.common import machine

ROOT = Path(__file__).resolve().parents[2]


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


class Load:
    """What the clients saw."""

    def __init__(self, url: str, model: str) -> None:
        self.model = model
        self.client: Any = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
        path = ROOT / "models/tiny/data/heldout.jsonl"
        self.questions = itertools.cycle([question.text for question in itertools.islice(read_questions(path), 100)])
        self.seconds: list[float] = []
        self.outcomes = Counter[str]()
        self.first: dict[str, str | None] = {}

    async def ask(self, stream: bool) -> None:
        question, started = next(self.questions), time.monotonic()
        asked = {"model": self.model, "messages": [{"role": "user", "content": question}], "stream": stream}
        try:
            reply = await self.client.chat.completions.create(**asked)
            if stream:
                async for chunk in reply:
                    about = getattr(chunk, "arbor", {})
                    found = about if "answer" in about else {}
            else:
                found = reply.arbor
        except openai.APIError as error:
            self.outcomes[type(error).__name__] += 1
            return
        self.seconds.append(time.monotonic() - started)
        answer = found.get("answer")
        same = self.first.setdefault(question, answer) == answer
        said = answer is not None or "no_answer" in found
        self.outcomes["answered" if said and same else "lost" if not said else "differs"] += 1

    async def run(self, clients: int, seconds: float) -> float:
        """Seconds that it took, with the last questions."""
        started = time.monotonic()

        async def one(stream: bool) -> None:
            while time.monotonic() - started < seconds:
                await self.ask(stream)

        await asyncio.gather(*(one(number % 2 == 0) for number in range(clients)))
        return time.monotonic() - started


def start(key: str, more: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A server with a further key of its configuration, and its address."""
    command = [sys.executable, "-m", "arbor", "serve", "--config", "configs/tiny/sbs_3_5.yaml", "--port", "0"]
    server = subprocess.Popen([*command, "--set", key, *more], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().split()[-1]


async def measure(load: Load, pid: int, clients: int, seconds: float) -> tuple[float, float, float]:
    """(memory before, after, seconds that it took)"""
    await load.run(4, 5)  # warm
    before, load.seconds, load.outcomes = memory_mib(pid), [], Counter()
    took = await load.run(clients, seconds)
    return before, memory_mib(pid), took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model", default="arbor-sbs-1-5")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--proxy", action="store_true", help="the rival")
    options = parser.parse_args()
    places = ["--in-flight", str(options.in_flight), "--queue", str(options.clients)]
    behind = None
    if options.proxy:
        one = ["--in-flight", "1000", "--queue", "10000"]
        behind, url = start("engine_args={threads: 1, max_kept_tokens: 1}", one)
        server, url = start(f"engine_args={{base_url: '{url}', in_flight: 512}}", ["--set", "engine=openai", *places])
    else:
        server, url = start("engine_args={threads: 1}", places)
    load = Load(url, options.model)
    try:
        before, after, took = asyncio.run(measure(load, server.pid, options.clients, options.seconds))
    finally:
        for process in filter(None, (server, behind)):
            process.terminate()
            process.wait()
    cuts = statistics.quantiles(load.seconds, n=100)
    latencies = [f"{one:.2f}" for one in (*(cuts[at - 1] for at in (50, 90, 99)), max(load.seconds))]
    count = len(load.seconds)
    row = (options.model, str(options.clients), str(count), f"{count / took:.1f}", *latencies)
    print(machine())
    print(text_table(("model", "clients", "replies", "1/s", "p50 s", "p90 s", "p99 s", "max s"), [row]))
    print(f"outcomes: {dict(load.outcomes)}; resident memory {before:.0f} → {after:.0f} MiB")


if __name__ == "__main__":
    main()

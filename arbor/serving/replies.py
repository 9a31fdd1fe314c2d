"""Replies in the forms of OpenAI's API, with what a search knows beside them under `arbor`."""

from __future__ import annotations

import secrets
import time
from typing import Any

from arbor.serving.asked import Asked
from arbor.serving.service import Step, solution

EXTRA = ("tokens_computed", "tokens_reused", "tokens_generated", "samples", "simulations")


class Reply:
    """One reply. chat: of chat completions, else of completions."""

    def __init__(self, asked: Asked, chat: bool, step_delim: str) -> None:
        self.asked, self.chat, self.step_delim = asked, chat, step_delim
        kind = "chat.completion" if chat else "text_completion"
        name = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._head = {"id": name, "object": kind, "created": int(time.time()), "model": asked.name}

    def whole(self, record: dict[str, Any]) -> dict[str, Any]:
        text = "".join(self.text(at, step) for at, step in enumerate(solution(record))) + closing(record)
        content = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "finish_reason": _finish(record), "logprobs": None}
        return {**self._head, "choices": [choice], "usage": usage(record), "arbor": self.about(record)}

    def text(self, at: int, step: Step) -> str:
        """What step number `at` adds to the text of the solution."""
        return (self.step_delim if at else "") + step.text

    def first(self) -> dict[str, Any]:
        """The chunk that says that the search has begun."""
        return self._chunk({"role": "assistant", "content": ""} if self.chat else "")

    def step(self, at: int, step: Step) -> dict[str, Any]:
        about = {"step": {"tag": step.tag, "value": step.value, "text": step.text}}
        text = self.text(at, step)
        return self._chunk({"content": text} if self.chat else text) | {"arbor": about}

    def last(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The answer, the end, and the usage where it was asked for."""
        chunks = [self._chunk({"content": end} if self.chat else end)] if (end := closing(record)) else []
        chunks.append(self._chunk({} if self.chat else "", _finish(record)) | {"arbor": self.about(record)})
        if self.asked.with_usage:
            chunks.append(self._chunk(None) | {"choices": [], "usage": usage(record)})
        return chunks

    def _chunk(self, delta: Any, finish: str | None = None) -> dict[str, Any]:
        content = {"delta": delta} if self.chat else {"text": delta}
        choice = {"index": 0, **content, "finish_reason": finish, "logprobs": None}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice]}

    def about(self, record: dict[str, Any]) -> dict[str, Any]:
        """What OpenAI's form has no place for."""
        prediction, meta = record["prediction"], record["meta"]
        steps = [{"tag": step.tag, "value": step.value, "text": step.text} for step in solution(record)]
        about = {
            "answer": prediction["final_answer"] if prediction else None,
            **({key: prediction[key] for key in ("tag", "run", "votes", "candidates")} if prediction else {}),
            **{key: meta[key] for key in ("no_answer", "stopped", "failures") if key in meta},
            "steps": steps,
            "seed": meta["seed"],
            "timed_out": meta["timed_out"],
            "seconds": meta["wall_seconds"],
        }
        if self.asked.ignored:
            about["ignored"] = list(self.asked.ignored)
        return about | ({"tree": record} if self.asked.with_tree else {})


def closing(record: dict[str, Any]) -> str:
    """The search's decision in the notation that graders and people read: after a vote it is not the steps' alone."""
    prediction = record["prediction"]
    return f"\n\n\\boxed{{{prediction['final_answer']}}}" if prediction else ""


def _finish(record: dict[str, Any]) -> str:
    """`length`: the search ended (time, budget, depth) before it had an answer."""
    return "stop" if record["prediction"] else "length"


def usage(record: dict[str, Any]) -> dict[str, Any]:
    """prompt_tokens: the length of the question's prompt. completion_tokens: sampled by the whole search, not those of
    the solution alone. tokens_computed: positions that went through the network for it."""
    meta = record["meta"]
    prompt, generated = len(record["react"]["0"]["token_ids"]), meta["tokens_generated"]
    counts = {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
    return counts | {key: meta[key] for key in EXTRA}

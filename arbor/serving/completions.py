"""Completions of the engine itself, without a search: policy, and the value of a prompt beside the choices.

A choice has `token_ids`, `token_logprobs` (null where the engine behind has only their sum) and `logprob`, the sum with
the end of the sequence.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from arbor.serving.limits import Refused
from mcts.config import make_keys
from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Expansion, Sample, Sampling

KEPT_CONTEXTS = 1024
UNSUPPORTED = ("stream", "echo", "suffix", "logit_bias", "presence_penalty", "frequency_penalty")


class Asked(BaseModel):
    """The keys of a request that count; others are passed over, as OpenAI's servers do."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    prompt: Any = ""
    n: int = Field(1, ge=1, le=256)
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, ge=1e-6, le=1)
    top_k: int = Field(-1, ge=-1, le=1 << 31)
    max_tokens: int = Field(16, ge=1, le=1 << 31)
    stop: list[Annotated[str, StringConstraints(min_length=1)]] = []
    seed: int | None = Field(None, ge=-(1 << 63), le=1 << 64)

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Contexts:
    """Finds the context that a prompt continues, so that the engine's kept entries serve it; the newest are held."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[int, ...], Context] = OrderedDict()

    def get(self, ids: tuple[int, ...]) -> Context:
        lengths = sorted({len(known) for known in self._held if len(known) <= len(ids)}, reverse=True)
        start = next((ids[:length] for length in lengths if ids[:length] in self._held), None)
        if start is None:
            context = Context(None, ids)
        else:
            self._held.move_to_end(start)
            context = self._held[start] if start == ids else Context(self._held[start], ids[len(start) :])
        self._hold(ids, context)
        return context

    def keep(self, ids: tuple[int, ...], samples: tuple[Sample, ...]) -> None:
        for sample in samples:
            if sample.context is not None:
                self._hold(ids + sample.token_ids, sample.context)

    def _hold(self, ids: tuple[int, ...], context: Context) -> None:
        self._held[ids] = context
        while len(self._held) > KEPT_CONTEXTS:
            self._held.popitem(last=False)


class Completions:
    """Belongs to one event loop, that of the engine. name: of the model."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.contexts = Contexts()
        self._vocabulary: int = model.tokenizer.size
        self._seeds = itertools.count()

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request. Raises Refused."""
        if wanted := [key for key in UNSUPPORTED if body.get(key)]:
            raise Refused(400, f"{wanted[0]}: not supported", "unsupported_parameter", wanted[0])
        if body.get("model") not in (None, self.name):
            raise Refused(400, f"model: {body['model']!r:.100} is not served here; expected {self.name!r}")
        try:
            keys = {key: value for key, value in body.items() if value is not None}
            return await self._complete(make_keys(Asked, keys, "the request"))
        except ContextTooLong as error:
            raise Refused(400, f"context length: {error}", "context_length_exceeded") from None
        except UserError as error:
            raise Refused(400, str(error).removeprefix("the request: ")) from None

    async def _complete(self, asked: Asked) -> dict[str, Any]:
        ids = self._prompt(asked.prompt)
        params = Sampling(
            asked.temperature, asked.top_p, asked.top_k, asked.max_tokens, tuple(asked.stop),
            ("serve", next(self._seeds) if asked.seed is None else asked.seed),
        )  # fmt: skip
        expansion: Expansion = await self.model.sample(self.contexts.get(ids), asked.n, params)
        self.contexts.keep(ids, expansion.samples)
        choices = [self._choice(index, sample) for index, sample in enumerate(expansion.samples)]
        generated = sum(len(sample.token_ids) + (sample.finish == "eos") for sample in expansion.samples)
        usage = {"prompt_tokens": len(ids), "completion_tokens": generated, "total_tokens": len(ids) + generated}
        reply = {"object": "text_completion", "model": self.name, "choices": choices, "usage": usage}
        return reply if expansion.value is None else reply | {"value": expansion.value}

    def _prompt(self, prompt: Any) -> tuple[int, ...]:
        if isinstance(prompt, str) and prompt:
            return tuple(self.model.encode_prompt(prompt))
        if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
            if not all(0 <= token < self._vocabulary for token in prompt):  # it would break the others' requests too
                raise UserError(f"prompt: expected token ids from 0 to {self._vocabulary - 1}")
            return tuple(prompt)
        raise UserError("prompt: expected a text or a list of token ids, not empty")

    @staticmethod
    def _choice(index: int, sample: Sample) -> dict[str, Any]:
        return {
            "index": index,
            "text": sample.text,
            "finish_reason": "length" if sample.finish == "length" else "stop",
            "stop_reason": sample.stop or None,
            "token_ids": list(sample.token_ids),
            "logprob": sample.logprob,
            "logprobs": {"token_logprobs": list(sample.logprobs) or [None] * len(sample.token_ids)},
        }

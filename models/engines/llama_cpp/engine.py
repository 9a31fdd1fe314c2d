"""The llama.cpp engine: a GGUF file in any quantisation as policy, with the value head beside it, on a laptop.

One `llama_decode` a step serves every running sample. A sequence of llama.cpp's memory is a list of tokens; a prompt
takes the cells of its longest known beginning from another sequence (they are shared, not copied) and computes the
rest. Finished sequences stay while somebody holds their context, others for a while (`max_idle_tokens`): every token
looks at all cells in use, masked ones too. Where a place or cells are missing, the least recently used sequence goes;
when running samples alone fill the memory, the youngest ones start again later (their noise is their own, so nothing
changes). The value head reads the state after the final norm. Not covered: recurrent models, and the same bits
whatever runs beside (llama.cpp's sums depend on the batch).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mcts.errors import UserError
from mcts.model import Context, ContextTooLong, Conversation, Expansion, Sample, Sampling, Usage
from models.engines.draft import Draft, Drafts
from models.engines.llama_cpp.gguf import gguf_file
from models.engines.llama_cpp.weights import BATCH_TOKENS, SEQUENCES, OwnVocabulary, Settings, Weights, quiet
from models.engines.sampling import Style, choose, noise
from models.engines.text import Tokenizer, load_tokenizer
from models.engines.usage import UsageCounter
from models.engines.value_head import ValueHead, load_value_head

MISSING = "llama-cpp-python is not installed: pip install -r requirements-llama.txt (builds for some minutes)"
MAX_ROWS = 96  # running sequences; more of them fill more cells, at which every one of them looks


@dataclass(eq=False)
class Request:
    """`n` samples of a context, or its value alone (n = 0). todo: the samples that nobody is making yet."""

    context: Context
    n: int
    params: Sampling
    ids: list[int]
    done: asyncio.Future[Expansion]
    todo: list[int]
    value: float | None = None
    samples: dict[int, Sample] = field(default_factory=dict)


@dataclass(eq=False)
class Member:
    """One sample in the making."""

    request: Request
    index: int
    style: Style
    noise: random.Random
    draft: Draft


@dataclass(eq=False)
class Row:
    """Samples with the same tokens so far, on one sequence. token: the next one to feed.

    values, asked: of a prompt's row, who wants its value only, and everybody (with the samples that were admitted).
    """

    sequence: int
    members: list[Member]
    token: int
    values: list[Request] = field(default_factory=list)
    asked: list[tuple[Request, list[int]]] = field(default_factory=list)


class Sequences:
    """The tokens behind every sequence of the memory; a beginning is found by content."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.tokens = np.full((SEQUENCES, weights.window + 1), -1, np.int32)
        self.length = np.zeros(SEQUENCES, int)
        self.used = np.zeros(SEQUENCES, int)  # when a sequence was last needed
        self.running: set[int] = set()
        self._holders = [weakref.WeakSet[Context]() for _ in range(SEQUENCES)]
        self._clock = 0

    def known(self, ids: Sequence[int]) -> tuple[int, int]:
        """(sequence, length) of the longest beginning of `ids` that is in the memory."""
        wanted = np.asarray(ids, np.int32)
        same = self.tokens[:, : len(ids)] == wanted
        lengths = np.minimum(np.where(same.all(1), len(ids), same.argmin(1)), self.length)
        best = int(lengths.argmax())
        return best, int(lengths[best])

    def take(self, source: int, length: int) -> int:
        """A running sequence with the first `length` tokens of another one."""
        idle = [i for i in range(SEQUENCES) if i not in self.running and (i != source or not length)]
        target = min(idle, key=lambda i: (self.length[i] > 0, self.used[i]))
        self.drop(target)
        self.weights.share(source, target, length)
        self.tokens[target, :length] = self.tokens[source, :length]
        self.length[target] = length
        self.running.add(target)
        self._touch(source)
        return target

    def append(self, sequence: int, ids: Sequence[int]) -> None:
        start = self.length[sequence]
        self.tokens[sequence, start : start + len(ids)] = ids
        self.length[sequence] += len(ids)

    def hold(self, sequence: int, context: Context) -> None:
        """The sequence holds the tokens of `context`, which somebody may build upon."""
        self._holders[sequence].add(context)

    def rest(self, sequence: int) -> None:
        """The sequence runs no longer; it is kept while there is room."""
        self.running.discard(sequence)
        self._touch(sequence)

    def tidy(self, tokens: int) -> None:
        """Drops the idle sequences that nobody holds, but for the last used ones with at most `tokens` tokens."""
        idle = [i for i in np.flatnonzero(self.length) if i not in self.running and not self._holders[i]]
        for i in sorted(idle, key=lambda i: self.used[i], reverse=True):
            tokens -= int(self.length[i])
            if tokens < 0:
                self.drop(int(i))

    def drop(self, sequence: int) -> None:
        self.weights.free(sequence)
        self.tokens[sequence], self.length[sequence] = -1, 0
        self.running.discard(sequence)
        self._holders[sequence].clear()

    def make_room(self) -> bool:
        """Drops the least recently used sequence that does not run; False if there is none."""
        idle = [i for i in range(SEQUENCES) if i not in self.running and self.length[i]]
        if idle:
            self.drop(min(idle, key=lambda i: self.used[i]))
        return bool(idle)

    def _touch(self, sequence: int) -> None:
        self._clock += 1
        self.used[sequence] = self._clock


class LlamaCppModel:
    """`LanguageModel` over a GGUF file. May be used from several event loops, one after another."""

    def __init__(self, weights: Weights, tokenizer: Tokenizer, head: ValueHead | None, max_rows: int = 256) -> None:
        self.weights, self.tokenizer, self.head = weights, tokenizer, head
        self.max_rows = min(max_rows, MAX_ROWS)
        self.counter = UsageCounter()
        self._drafts = Drafts(tokenizer, weights.eos())
        self._sequences = Sequences(weights)
        self._rows: list[Row] = []
        self._pending: deque[Request] = deque()
        self._open: set[Request] = set()
        self._tight = False  # memory was short: nobody is admitted until a sample is finished
        self._serving: asyncio.Task[None] | None = None
        self._executor = ThreadPoolExecutor(1, "llama.cpp")

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        *,
        need_value: bool = True,
        max_rows: int = 256,
        engine_args: dict[str, Any] | None = None,
    ) -> LlamaCppModel:
        """Reads a GGUF file (or the only one of a folder), and beside it the value head when `need_value`, and
        tokenizer.json where there is one (else the file's own vocabulary serves). Raises UserError."""
        try:
            quiet()
        except ImportError:
            raise UserError(MISSING) from None
        settings = Settings.read(engine_args or {})
        path = gguf_file(model_dir)
        head = load_value_head(path.parent) if need_value else None
        weights = Weights(path, settings)
        if head is not None and head.summary.in_features != weights.hidden:
            raise UserError(
                f"{path}: the value head is for another model: {head.summary.in_features} inputs, "
                f"the model has {weights.hidden}"
            )
        beside = (path.parent / "tokenizer.json").exists()
        return cls(
            weights, Tokenizer(load_tokenizer(path.parent) if beside else OwnVocabulary(weights)), head, max_rows
        )

    # --- the port

    def encode(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode(text)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        return self.tokenizer.encode_start(text)

    def encode_chat(self, chat: Conversation) -> tuple[int, ...]:
        return self.tokenizer.encode_chat(chat)

    async def sample(self, context: Context, n: int, params: Sampling) -> Expansion:
        if context.length >= self.window:
            raise ContextTooLong(f"{context.length} tokens leave no room in a window of {self.window}")
        return await self._submit(context, n, params)

    async def evaluate(self, context: Context) -> float:
        if self.head is None:
            raise UserError("this model was loaded without its value head: set need_value_func: true")
        if context.length > self.window:
            raise ContextTooLong(f"{context.length} tokens do not fit a window of {self.window}")
        value = (await self._submit(context, 0, Sampling())).value
        assert value is not None
        return value

    @property
    def window(self) -> int:
        return min(self.weights.window, self.weights.cells)

    def usage(self, root: Context) -> Usage:
        """What was done for all prompts that begin with `root`."""
        return self.counter.usage(root)

    @property
    def totals(self) -> Usage:
        return self.counter.totals

    # --- serving

    async def _submit(self, context: Context, n: int, params: Sampling) -> Expansion:
        future: asyncio.Future[Expansion] = asyncio.get_running_loop().create_future()
        request = Request(context, n, params, context.all_token_ids(), future, list(range(n)))
        self._open.add(request)
        future.add_done_callback(lambda _: self._open.discard(request))
        self._pending.append(request)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        return await future

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending or self._rows:
                admitted = self._admitted()
                for request in await loop.run_in_executor(self._executor, self._step, admitted):
                    if not request.done.done():
                        samples = tuple(request.samples[index] for index in range(request.n))
                        request.done.set_result(Expansion(request.value, samples))
                await asyncio.sleep(0)  # those who got an answer may ask the next question before the next step
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _admitted(self) -> list[tuple[Request, list[int]]]:
        """The next step's new requests and which of their samples: what fits, and no two prompts that would compute
        the same beginning."""
        room = self.max_rows - sum(len(row.members) for row in self._rows)
        # Steps of questions that have begun go first: where a question ends, its cells are free.
        self._pending = deque(sorted(self._pending, key=lambda request: request.context.parent is None))
        admitted: list[tuple[Request, list[int]]] = []
        later: list[Request] = []
        starts: set[tuple[int, ...]] = set()
        prompts: set[tuple[int, ...]] = set()
        while self._pending and room > 0 and not (self._tight and self._rows):
            request = self._pending.popleft()
            if request.done.done():
                continue
            prompt = tuple(request.ids)
            start = prompt[: self._sequences.known(prompt)[1] + 1]
            if prompt not in prompts and start in starts:
                later.append(request)
                continue
            starts.add(start)
            prompts.add(prompt)
            wave, request.todo = request.todo[:room], request.todo[room:]
            room -= max(1, len(wave))
            admitted.append((request, wave))
            if request.todo:
                later.append(request)
        self._pending.extendleft(reversed(later))
        return admitted

    def _fail(self, error: BaseException) -> None:
        """A step broke: everybody who waits is told, and the engine starts empty."""
        self._pending.clear()
        self._rows.clear()
        for sequence in range(SEQUENCES):
            self._sequences.drop(sequence)
        for request in list(self._open):
            if not request.done.done():
                if isinstance(error, Exception):
                    request.done.set_exception(error)
                else:
                    request.done.cancel()

    # --- one step, in the engine's thread

    def _step(self, admitted: list[tuple[Request, list[int]]]) -> list[Request]:
        """Computes the prompts of `admitted`, feeds one token to every row, and returns what is finished."""
        self._drop_cancelled()
        self._sequences.tidy(self.weights.max_idle_tokens)
        prompts: dict[tuple[int, ...], list[tuple[Request, list[int]]]] = {}
        for request, wave in admitted:
            prompts.setdefault(tuple(request.ids), []).append((request, wave))
        new: list[Row] = []
        for asked in prompts.values():
            new += self._enter(asked, alone=not (self._rows or new))
        while not self._decode(new):
            self._make_room(new)
        finished = [request for row in new for request in row.values]
        for row in new:
            if not row.members:
                self._sequences.rest(row.sequence)
        return finished + self._draw()

    def _enter(self, asked: list[tuple[Request, list[int]]], alone: bool) -> list[Row]:
        """A row for a prompt, its cells computed but for the last token; none if it has to wait for memory."""
        ids = asked[0][0].ids
        source, known = self._sequences.known(ids)
        known = min(known, len(ids) - 1)
        sequence = self._sequences.take(source, known)
        started = time.perf_counter()
        for start in range(known, len(ids) - 1, BATCH_TOKENS):
            part = ids[start : min(start + BATCH_TOKENS, len(ids) - 1)]
            places = [(token, start + i, sequence) for i, token in enumerate(part)]
            while not self.weights.decode(places, outputs=False, states=False):
                if not self._sequences.make_room():
                    assert not alone, "the memory holds a whole window"
                    self._sequences.drop(sequence)
                    self._later(asked)
                    return []
            self._sequences.append(sequence, part)
        self.counter.count(asked[0][0].context, prefill_seconds=time.perf_counter() - started)
        for position, (request, _) in enumerate(asked):
            self.counter.count(request.context, prompt=len(ids), reused=len(ids) if position else known)
        members = [self._member(request, index) for request, wave in asked for index in wave]
        return [Row(sequence, members, ids[-1], [request for request, _ in asked if not request.n], asked)]

    def _later(self, asked: list[tuple[Request, list[int]]]) -> None:
        """Puts samples back to the head of the queue."""
        self._tight = True
        for request, wave in reversed(asked):
            request.todo = [*wave, *request.todo]
            if request not in self._pending:
                self._pending.appendleft(request)

    def _member(self, request: Request, index: int) -> Member:
        params = request.params
        draft = self._drafts.start(request.context, params.stop, min(params.max_tokens, self.window - len(request.ids)))
        style = Style(params.temperature, params.top_k, params.top_p)
        return Member(request, index, style, noise(params.key, index), draft)

    def _decode(self, new: list[Row]) -> bool:
        """Feeds the next token of every row, the new ones first; False, with nothing changed, if memory is full."""
        rows = new + self._rows
        if not rows:
            self._logits = torch.empty(0, self.weights.vocab_size)
            return True
        places = [(row.token, int(self._sequences.length[row.sequence]), row.sequence) for row in rows]
        started = time.perf_counter()
        if not self.weights.decode(places, outputs=True, states=self.head is not None and bool(new)):
            return False
        for row in rows:
            self._sequences.append(row.sequence, [row.token])
        for row in new:
            for request, _ in row.asked:
                self._sequences.hold(row.sequence, request.context)
        each = (time.perf_counter() - started) / len(rows)
        for row in new:
            self.counter.count(row.asked[0][0].context, prefill_seconds=each)
        for row in self._rows:
            self.counter.count(row.members[0].request.context, decoded=1, decode_seconds=each)
        if self.head is not None and new:
            with torch.inference_mode():
                values = self.head(self.weights.states(len(new))).tolist()
            if not all(map(math.isfinite, values)):
                raise UserError("the value head gives no finite value: its weights or the model's overflow")
            for row, value in zip(new, values, strict=True):
                for request, _ in row.asked:
                    request.value = value
        drawing = [i for i, row in enumerate(rows) if row.members]
        self._logits = self.weights.logits(len(rows))[drawing]
        self._rows = [rows[i] for i in drawing]
        return True

    def _draw(self) -> list[Request]:
        """Draws the next token of every sample; ends and splits rows."""
        members = [(at, member) for at, row in enumerate(self._rows) for member in row.members]
        if not members:
            return []
        draws = choose(
            self._logits,
            [at for at, _ in members],
            [member.style for _, member in members],
            [member.noise.random() for _, member in members],
        )
        finished: list[Request] = []
        groups: list[dict[int, list[Member]]] = [{} for _ in self._rows]
        for (at, member), token, logprob in zip(members, draws.tokens, draws.logprobs, strict=True):
            sample = member.draft.add(token, logprob)
            if sample is None:
                groups[at].setdefault(token, []).append(member)
                continue
            member.request.samples[member.index] = sample
            if sample.context is not None:
                self._sequences.hold(self._rows[at].sequence, sample.context)
            self._tight = False
            self.counter.count(member.request.context, generated=len(sample.token_ids))
            if len(member.request.samples) == member.request.n:
                finished.append(member.request)
        self._rows = [part for at, row in enumerate(self._rows) for part in self._split(row, groups[at])]
        return finished

    def _split(self, row: Row, groups: dict[int, list[Member]]) -> list[Row]:
        """A row for every group of samples that drew the same token."""
        if not groups:
            self._sequences.rest(row.sequence)
            return []
        (token, members), *others = groups.items()
        length = int(self._sequences.length[row.sequence])
        split = [Row(self._sequences.take(row.sequence, length), group, other) for other, group in others]
        return [Row(row.sequence, members, token), *split]

    def _drop_cancelled(self) -> None:
        for row in self._rows:
            row.members = [member for member in row.members if not member.request.done.done()]
            if not row.members:
                self._sequences.rest(row.sequence)
        self._rows = [row for row in self._rows if row.members]

    def _make_room(self, new: list[Row]) -> None:
        """Frees memory: what is merely kept, else a new prompt, else the youngest row starts again later."""
        if self._sequences.make_room():
            return
        rows = new if new and len(new) + len(self._rows) > 1 else self._rows
        assert len(new) + len(self._rows) > 1, "the memory holds a whole window"
        row = rows.pop()
        self._sequences.drop(row.sequence)
        self._later(row.asked if rows is new else [(member.request, [member.index]) for member in row.members])

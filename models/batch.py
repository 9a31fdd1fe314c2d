"""Continuous batching, without any asyncio: requests in, finished requests out, one step at a time.

A step is at most one round of prefills (all waiting prompts together) and one decoding position for every running
row. The samples of one prompt share a row until their tokens part, so a token that several samples have in common
is computed once. Shapes are padded (decoding rows to 8, new tokens to 8, positions to 64): on a CPU the arithmetic of a
row is then the same in every batch, and so are its tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mcts.model import Context, Expansion, Finish, Sample, Sampling, Usage
from models.choose import choose, noise
from models.kv import LENGTH_STEP, ContextStore, Kept, Rows, round_up
from models.network import Network
from models.text import Tokenizer

ROW_STEP = 8
TOKEN_STEP = 8
PREFILL_TOKENS = 16384  # positions in one prefill pass


@dataclass(eq=False)
class Request:
    """`n` samples of a context, or its value alone (n = 0). result: set when the request is finished."""

    context: Context
    n: int = 0
    params: Sampling = field(default_factory=Sampling)
    usages: tuple[Usage, ...] = ()  # whose bill it goes on
    cancelled: bool = False
    value: float | None = None
    samples: dict[int, Sample] = field(default_factory=dict)

    def count(self, *, prompt: int = 0, computed: int = 0, reused: int = 0, generated: int = 0) -> None:
        """Adds tokens to the bills."""
        for usage in self.usages:
            usage.prompt_tokens += prompt
            usage.tokens_computed += computed
            usage.tokens_reused += reused
            usage.tokens_generated += generated

    @property
    def expansion(self) -> Expansion:
        return Expansion(self.value, tuple(self.samples[index] for index in range(self.n)))


@dataclass(eq=False)
class Prompt:
    """A context of this step and everybody who asked for it; they share its prefill and its row."""

    context: Context
    requests: list[Request]

    @property
    def sampled(self) -> bool:
        return any(request.n for request in self.requests)


@dataclass(eq=False)
class Member:
    """One sample in the making."""

    request: Request
    index: int
    noise: random.Random
    limit: int  # tokens
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0


@dataclass(eq=False)
class Row:
    """A sequence whose entries stand in one row. length: positions that are written. token: the next one to feed."""

    members: list[Member]
    length: int
    token: int = -1


class Batch:
    """The running rows of one model; row i of `rows` is row i of the rectangle."""

    def __init__(self, network: Network, tokenizer: Tokenizer, store: ContextStore, eos: frozenset[int]) -> None:
        self.network, self.tokenizer, self.store, self.eos = network, tokenizer, store, eos
        self.rows: list[Row] = []
        self._memory = Rows(network.shape, network.dtype, network.device)
        self._stop_hints: dict[tuple[str, ...], dict[int, bool]] = {}

    @property
    def running(self) -> int:
        """Samples in the making."""
        return sum(len(row.members) for row in self.rows)

    def step(self, admitted: Sequence[Request]) -> list[Request]:
        """Prefills `admitted`, decodes one position of everything that runs, and returns what is finished."""
        finished: list[Request] = []
        with torch.inference_mode():
            self._drop_cancelled()
            self._admit(admitted, finished)
            if self.rows:
                finished += self._decode()
        return finished

    # --- prefill

    def _admit(self, requests: Sequence[Request], finished: list[Request]) -> None:
        ready: list[tuple[Prompt, Kept]] = []
        to_compute: list[tuple[int, Prompt]] = []  # (first position to compute, prompt)
        for prompt in _prompts(requests):
            context = prompt.context
            covered = self.store.covered(context)
            kept = self.store.get(context)
            first, *others = prompt.requests
            for request in others:
                request.count(prompt=context.length, reused=context.length)
            if covered == context.length and kept is not None and kept.logits is not None:
                first.count(prompt=context.length, reused=covered)
                ready.append((prompt, kept))
            else:
                start = min(covered, context.length - 1)
                first.count(prompt=context.length, reused=start, computed=context.length - start)
                to_compute.append((start, prompt))
        for chunk in _chunks(to_compute):
            finished += self._prefill(chunk)
        for prompt, kept in ready:
            if prompt.sampled:
                assert kept.logits is not None
                self._memory.reserve(len(self.rows) + 1, prompt.context.length)
                self._memory.load(len(self.rows), prompt.context, self.store, prompt.context.length)
                finished += self._start([prompt], kept.logits[None])
            finished += _answer(prompt, kept.value)

    def _prefill(self, chunk: list[tuple[int, Prompt]]) -> list[Request]:
        """Computes the missing positions of several prompts in one pass, the sampled ones first."""
        chunk = sorted(chunk, key=lambda entry: not entry[1].sampled)
        first = len(self.rows)
        tokens = round_up(max(prompt.context.length - start for start, prompt in chunk), TOKEN_STEP)
        longest = max(prompt.context.length for _, prompt in chunk)
        rows = len(chunk)
        self._memory.reserve(first + rows, longest)
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        positions = torch.zeros(rows, tokens, dtype=torch.long)
        write_at = torch.full((rows, tokens), self._memory.positions - 1, dtype=torch.long)
        for row, (start, prompt) in enumerate(chunk):
            self._memory.load(first + row, prompt.context, self.store, start)
            new = prompt.context.all_token_ids()[start:]
            ids[row, tokens - len(new) :] = torch.tensor(new)
            positions[row, tokens - len(new) :] = torch.arange(start, prompt.context.length)
            write_at[row, tokens - len(new) :] = torch.arange(start, prompt.context.length)
        length = min(round_up(longest, LENGTH_STEP), self._memory.positions)
        logits, values = self.network.forward(self._memory, first, ids, positions, write_at, length, with_values=True)
        finished: list[Request] = []
        for row, (_, prompt) in enumerate(chunk):
            value = None if values is None else float(values[row])
            self._keep(first + row, prompt.context, logits[row], value)
            finished += _answer(prompt, value)
        sampled = [prompt for _, prompt in chunk if prompt.sampled]
        return finished + self._start(sampled, logits[: len(sampled)])

    def _keep(self, row: int, context: Context, logits: Tensor, value: float | None) -> None:
        """Keeps the segments of a prompt that were not complete, and what is known at its end."""
        end = context.length
        for segment in context.segments():
            start = end - len(segment.token_ids)
            kept = self.store.get(segment)
            if kept is None or kept.covered < end - start:
                kept = self._memory.cut(row, start, end)
                self.store.put(segment, kept)
            if segment is context:
                self.store.put(segment, replace(kept, logits=logits.clone(), value=value))
            end = start

    def _start(self, prompts: Sequence[Prompt], logits: Tensor) -> list[Request]:
        """Makes the rows after the running ones run: their prompts are loaded, `logits` [n, vocabulary] are theirs."""
        if not prompts:
            return []
        first = len(self.rows)
        for prompt in prompts:
            room = self.network.window - prompt.context.length
            members = [
                Member(request, i, noise(request.params.key, i), min(request.params.max_tokens, room))
                for request in prompt.requests
                for i in range(request.n)
            ]
            self.rows.append(Row(members, prompt.context.length))
        return self._draw(first, logits)

    # --- decoding

    def _decode(self) -> list[Request]:
        count = len(self.rows)
        padded = round_up(count, ROW_STEP)
        longest = max(row.length for row in self.rows) + 1
        self._memory.reserve(padded, longest)
        ids = torch.zeros(padded, 1, dtype=torch.long)
        positions = torch.zeros(padded, 1, dtype=torch.long)
        ids[:count, 0] = torch.tensor([row.token for row in self.rows])
        positions[:count, 0] = torch.tensor([row.length for row in self.rows])
        write_at = positions.clone()
        write_at[count:] = self._memory.positions - 1
        length = min(round_up(longest, LENGTH_STEP), self._memory.positions)
        logits, _ = self.network.forward(self._memory, 0, ids, positions, write_at, length, with_values=False)
        for row in self.rows:
            row.length += 1
            row.members[0].request.count(computed=1)
        return self._draw(0, logits[:count])

    def _draw(self, first: int, logits: Tensor) -> list[Request]:
        """Draws the next token of every sample in the rows from `first` on; ends, splits and drops rows."""
        rows = self.rows[first:]
        members = [(at, member) for at, row in enumerate(rows) for member in row.members]
        draws = choose(
            logits,
            [at for at, _ in members],
            [member.request.params for _, member in members],
            [member.noise.random() for _, member in members],
        )
        finished: list[Request] = []
        groups: list[dict[int, list[Member]]] = [{} for _ in rows]
        for (at, member), token, logprob in zip(members, draws.tokens, draws.logprobs, strict=True):
            sample = self._advance(first + at, member, token, logprob)
            if sample is None:
                groups[at].setdefault(token, []).append(member)
                continue
            member.request.samples[member.index] = sample
            if len(member.request.samples) == member.request.n:
                finished.append(member.request)
        self._regroup(first, groups)
        return finished

    def _advance(self, at: int, member: Member, token: int, logprob: float) -> Sample | None:
        """Adds a token to a sample; the sample, if that ends it."""
        member.logprob += logprob
        if token in self.eos:
            return self._finish(at, member, "eos", self.tokenizer.decode(member.token_ids), "", "")
        member.token_ids.append(token)
        stop = member.request.params.stop
        if self._may_stop(stop, token):
            raw = self.tokenizer.decode(member.token_ids)
            found = [(raw.find(one), one) for one in stop if one in raw]
            if found:
                cut, which = min(found, key=lambda hit: (hit[0], -len(hit[1])))
                return self._finish(at, member, "stop", raw[:cut], which, raw[cut + len(which) :])
        if len(member.token_ids) >= member.limit:
            return self._finish(at, member, "length", self.tokenizer.decode(member.token_ids), "", "")
        return None

    def _may_stop(self, stop: tuple[str, ...], token: int) -> bool:
        """Whether `token` can be the one that completes a stop string: it holds the last character of one."""
        hints = self._stop_hints.setdefault(stop, {})
        hint = hints.get(token)
        if hint is None:
            piece = self.tokenizer.piece(token)
            hint = hints[token] = "\ufffd" in piece or any(one[-1] in piece for one in stop)
        return hint

    def _finish(self, at: int, member: Member, finish: Finish, text: str, stop: str, overflow: str) -> Sample:
        """The finished sample; its entries are kept under a Context of its own while somebody holds that."""
        request = member.request
        token_ids = tuple(member.token_ids)
        request.count(generated=len(token_ids))
        context = Context(request.context, token_ids)
        self.store.put(context, self._memory.cut(at, request.context.length, self.rows[at].length))
        ends = self.tokenizer.ends(token_ids, text + stop + overflow)
        return Sample(token_ids, text, member.logprob, finish, stop, overflow, ends, context)

    # --- rows

    def _regroup(self, first: int, groups: Sequence[dict[int, list[Member]]]) -> None:
        """Gives every group of samples with the same tokens a row of its own and closes the gaps."""
        splits: list[tuple[int, int, list[Member]]] = []  # (source row, token, samples)
        holes: list[int] = []
        for at, group in enumerate(groups, start=first):
            if not group:
                holes.append(at)
                continue
            (token, members), *others = group.items()
            self.rows[at].members, self.rows[at].token = members, token
            splits += [(at, token, members) for token, members in others]
        for source, token, members in splits:
            row = Row(members, self.rows[source].length, token)
            if holes:
                target = holes.pop()
                self.rows[target] = row
            else:
                target = len(self.rows)
                self.rows.append(row)
                self._memory.reserve(len(self.rows), row.length)
            self._memory.copy(source, target, row.length)
        self._close(holes)

    def _close(self, holes: Iterable[int]) -> None:
        """Moves rows from the end into empty places, so that the running rows are the first ones."""
        for hole in sorted(holes, reverse=True):
            last = self.rows.pop()
            if hole < len(self.rows):
                self._memory.copy(len(self.rows), hole, last.length)
                self.rows[hole] = last

    def _drop_cancelled(self) -> None:
        for row in self.rows:
            row.members = [member for member in row.members if not member.request.cancelled]
        self._close([at for at, row in enumerate(self.rows) if not row.members])


def _prompts(requests: Iterable[Request]) -> list[Prompt]:
    """The requests by context."""
    prompts: dict[Context, Prompt] = {}
    for request in requests:
        prompts.setdefault(request.context, Prompt(request.context, [])).requests.append(request)
    return list(prompts.values())


def _answer(prompt: Prompt, value: float | None) -> list[Request]:
    """Tells everybody the value; finished are those who asked for nothing else."""
    for request in prompt.requests:
        request.value = value
    return [request for request in prompt.requests if request.n == 0]


def _chunks(entries: list[tuple[int, Prompt]]) -> Iterable[list[tuple[int, Prompt]]]:
    """Groups prompts of similar length, so that little of a pass is padding and none is too large."""

    def missing(entry: tuple[int, Prompt]) -> int:
        return entry[1].context.length - entry[0]

    chunk: list[tuple[int, Prompt]] = []
    for entry in sorted(entries, key=missing):
        tokens = missing(entry)
        if chunk and ((len(chunk) + 1) * tokens > PREFILL_TOKENS or tokens > 2 * missing(chunk[0]) + 32):
            yield chunk
            chunk = []
        chunk.append(entry)
    if chunk:
        yield chunk

"""Continuous batching, without any asyncio: requests in, finished requests out, one step at a time.

A step is one pass through the network (more only where many long prompts come at once): the new prompts and one
position of every running row together. The samples of one prompt share a row until their tokens part, so a token
that several samples have in common is computed once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mcts.errors import UserError
from mcts.model import Context, Sample
from models.engines.draft import Drafts
from models.engines.sampling import Style, choose, noise
from models.engines.text import Tokenizer
from models.engines.transformers.attention import Pass
from models.engines.transformers.decoding import Layout
from models.engines.transformers.kv import PAGE, PAGES, PIECE, ContextStore, Kept, Pages, Tails, round_up
from models.engines.transformers.network import Network
from models.engines.transformers.pieces import Paged, Prompted, Sampled
from models.engines.transformers.requests import (
    Branch,
    Member,
    Prompt,
    Request,
    Row,
    branches_of,
    by_context,
    packed,
    tail_of,
)

# Positions of prompts in one pass. On a CPU what lies between two operations should stay in the caches, and in memory
# that the process keeps: larger passes spend a third of their time on page faults.
PREFILL_TOKENS = {"cpu": 2048, "cuda": 16384}


class Batch:
    """The running rows of one model; row i of `rows` has place i among the tails."""

    def __init__(
        self, network: Network, tokenizer: Tokenizer, eos: frozenset[int], max_kept_tokens: int, max_idle_tokens: int
    ) -> None:
        self.network, self.drafts = network, Drafts(tokenizer, eos)
        self.rows: list[Row] = []
        self.pages = Pages(network.shape, network.dtype, network.device)
        self.store = ContextStore(self.pages, max_kept_tokens, max_idle_tokens)
        self._tails = Tails(network.shape, network.dtype, network.device)
        self._decode_seconds = 0.0  # of a sample that has run from the beginning
        self._entered: list[Member] = []  # in this step
        self._left: list[Member] = []
        self._active: set[Request] = set()
        self._layout: Layout | None = None  # of the last pass
        self._room = PREFILL_TOKENS.get(network.device.type, PREFILL_TOKENS["cuda"])

    @property
    def running(self) -> int:
        """Samples in the making."""
        return sum(len(row.members) for row in self.rows)

    def clear(self) -> None:
        """Forgets everything that runs."""
        for row in self.rows:
            self.pages.release(row.pages)
        self.rows.clear()
        self._entered.clear()
        self._left.clear()
        self._active.clear()

    def step(self, admitted: Sequence[Request]) -> list[Request]:
        """Computes `admitted` and one position of everything that runs; returns what is finished."""
        finished: list[Request] = []
        started = time.perf_counter()
        with torch.inference_mode():
            self.store.collect()
            self._drop_cancelled()
            self._turn_over()
            ready, missing = self._look_up(admitted)
            logits = []
            rows = decoding = len(self.rows)
            running = self.running
            for blocks in packed(missing, self._room) or ([[]] if decoding else []):
                logits.append(self._compute(decoding, blocks, finished))
                decoding = 0
            for prompt, kept in ready:
                finished += _answer(prompt, kept.value)
                if not prompt.sampled:
                    self.pages.release(prompt.chain.pages)
                else:
                    assert kept.logits is not None
                    begun = self._start(prompt, self._paged(prompt))
                    logits.append(kept.logits.expand(begun, -1))
            if self.rows:
                finished += self._draw(torch.cat(logits))
        self._bill(time.perf_counter() - started, missing, rows, running)
        return finished

    def _bill(self, seconds: float, prompts: Sequence[Prompt], rows: int, running: int) -> None:
        """Divides the time of a step among its positions: those of a prompt go to who asked for it first, those of the
        rows to the samples that were running, in equal parts. What a sample pays is a difference of running sums."""
        sizes = [prompt.context.length - prompt.start for prompt in prompts]
        each = seconds / max(1, sum(sizes) + rows)
        for prompt, size in zip(prompts, sizes, strict=True):
            prompt.requests[0].bill(each * size, 0.0)
        self._decode_seconds += each * rows / max(1, running)
        for member in self._entered:
            member.since = self._decode_seconds
        for member in self._left:
            member.request.bill(0.0, self._decode_seconds - member.since)
        self._entered.clear()
        self._left.clear()

    # --- prompts

    def _look_up(self, requests: Sequence[Request]) -> tuple[list[tuple[Prompt, Kept]], list[Prompt]]:
        """The prompts whose end is known, and the others; counts what is reused."""
        ready: list[tuple[Prompt, Kept]] = []
        missing: list[Prompt] = []
        for prompt in by_context(requests):
            context = prompt.context
            prompt.chain = self.store.chain(context)
            prompt.start = prompt.chain.covered
            kept = self.store.get(context)
            if prompt.start == context.length and kept is not None and kept.logits is not None:
                ready.append((prompt, kept))
            else:
                prompt.start = min(prompt.start, context.length - 1)
                missing.append(prompt)
            self.pages.hold(prompt.chain.pages)  # what is put into the store meanwhile may push it out
            first, *others = prompt.requests
            first.count(prompt=context.length, reused=prompt.start, computed=context.length - prompt.start)
            for request in others:
                request.count(prompt=context.length, reused=context.length)
        return ready, missing

    def _paged(self, prompt: Prompt) -> Paged:
        """A prompt that is whole in its pages, which are held already."""
        return Paged(tuple(prompt.chain.pages), prompt.context.length)

    def _lay_out(self, prompts: Sequence[Prompt]) -> dict[Prompt, Paged]:
        """Room for what the prompts lack; what is kept of them by itself moves in. Pages that somebody else writes in
        are copied as far as they are shared."""
        sources: list[int] = []
        targets: list[int] = []
        found = {}
        for prompt in prompts:
            chain, length = prompt.chain, prompt.context.length
            first = min(chain.paged, prompt.start)
            at, inside = divmod(first, PAGE)
            needed = -(-length // PAGE)
            table = chain.pages
            kept = at
            while kept < min(len(table), needed) and self.pages.filled[table[kept]] == (inside if kept == at else 0):
                kept += 1  # nobody has written behind our part
            root = prompt.context.parent is None
            new = self.pages.take((round_up(needed, PAGES) if root else needed) - kept, run=root)
            if inside and kept == at:
                sources.append(table[at])
                targets.append(new[0])
            self.pages.release(table[kept:])
            prompt.chain.pages = [*table[:kept], *new]
            for number in range(at, needed):
                self.pages.filled[prompt.chain.pages[number]] = min(PAGE, length - number * PAGE)
            found[prompt] = self._paged(prompt)
        self.pages.copy(sources, targets)
        self._move_in(prompts)
        return found

    def _move_in(self, prompts: Sequence[Prompt]) -> None:
        """Writes entries that are kept by themselves to the pages of their prompts."""
        pages: list[np.ndarray] = []
        slots: list[np.ndarray] = []
        entries: list[tuple[Tensor, Tensor]] = []
        for prompt in prompts:
            chain = prompt.chain
            for kept in chain.loose:
                assert kept.entries is not None
                entries.append(kept.entries)
            if chain.loose:
                positions = np.arange(chain.paged, chain.paged + sum(kept.covered for kept in chain.loose))
                pages.append(np.array(chain.pages)[positions // PAGE])
                slots.append(positions % PAGE)
        if entries:
            keys, values = (torch.cat(parts, dim=2) for parts in zip(*entries, strict=True))
            self.pages.store(np.concatenate(pages), np.concatenate(slots), keys, values)

    def _compute(self, decoding: int, blocks: Sequence[Sequence[Prompt]], finished: list[Request]) -> Tensor:
        """One pass over the first `decoding` rows and the missing positions of prompts; starts the rows of the new
        prompts. Returns the logits of all of these rows."""
        prompts = [prompt for block in blocks for prompt in block]
        paged = self._lay_out(prompts)
        prompted = [[Prompted(paged[p], p.start, tail_of(p.context, p.start)) for p in block] for block in blocks]
        rows = self.rows[:decoding]
        samples = [Sampled(row.prompt, row.own, row.length, row.token) for row in rows]
        if samples and (self._layout is None or not self._layout.fits(samples)):
            self._layout = Layout(samples, self.pages, self.network.shape.groups)
        groups = self.network.shape.groups
        work = Pass(samples, self._layout if samples else None, prompted, self.pages, self._tails, groups)
        logits, computed = self.network.forward(work, with_values=bool(blocks))
        for row in rows:
            row.length += 1
            row.members[0].request.decoded += 1
        values = computed.tolist() if computed is not None else [None] * work.wanted
        wanted = list(range(decoding))
        for at, prompt in enumerate(prompts, start=decoding):
            self._keep(prompt, logits[at], values[at])
            finished += _answer(prompt, values[at])
            if prompt.sampled:
                wanted += [at] * self._start(prompt, paged[prompt])
            else:
                self.pages.release(paged[prompt].pages)
        return logits[: len(wanted)] if wanted == list(range(len(wanted))) else logits[wanted]

    def _keep(self, prompt: Prompt, logits: Tensor, value: float | None) -> None:
        """Keeps the segments of a prompt that were not in pages before, and what is known at its end."""
        context, pages = prompt.context, prompt.chain.pages
        end = context.length
        for segment in context.segments():
            start = end - len(segment.token_ids)
            if segment is context:
                last = tuple(pages[start // PAGE :]) if end > start else ()
                self.store.put(segment, Kept(end - start, last, logits=logits.clone(), value=value))
            elif end > prompt.chain.paged:
                self.store.put(segment, Kept(end - start, tuple(pages[start // PAGE : -(-end // PAGE)])))
            else:
                return
            end = start

    def _start(self, prompt: Prompt, paged: Paged) -> int:
        """Makes the samples of a computed prompt run; returns how many rows they are, whose logits are drawn from in
        this step."""
        room = self.network.window - prompt.context.length
        alike: dict[tuple[tuple[str, ...], int], list[Member]] = {}  # those that end for the same reasons
        for request in prompt.requests:
            params = request.params
            style = Style(params.temperature, params.top_k, params.top_p)
            members = [Member(request, index, noise(params.key, index), style) for index in range(request.n)]
            if members:
                alike.setdefault((params.stop, min(params.max_tokens, room)), []).extend(members)
                self._entered += members
                self._active.add(request)
        for (stop, limit), members in alike.items():
            self.pages.hold(paged.pages)
            self.rows.append(Row(members, self.drafts.start(prompt.context, stop, limit), paged))
        self.pages.release(paged.pages)
        self._tails.reserve(len(self.rows))
        return len(alike)

    # --- samples

    def _draw(self, logits: Tensor) -> list[Request]:
        """Draws the next token of every sample, logits [rows, vocabulary]; ends, splits and drops rows."""
        members = [member for row in self.rows for member in row.members]
        draws = choose(
            logits,
            [at for at, row in enumerate(self.rows) for _ in row.members],
            [member.style for member in members],
            [member.noise.random() for member in members],
        )
        finished: list[Request] = []
        branches: list[list[Branch]] = []
        end = 0
        for at, row in enumerate(self.rows):
            start, end = end, end + len(row.members)
            parted = branches_of(row, draws.tokens[start:end], draws.logprobs[start:end])
            going = []
            for branch, logprob in parted:
                sample = branch.draft.add(branch.token, logprob)
                if sample is None:
                    going.append(branch)
                else:
                    finished += self._finish(at, branch.members, sample)
            branches.append(going)
        self._regroup(branches)
        return finished

    def _finish(self, at: int, members: Iterable[Member], sample: Sample) -> list[Request]:
        """Hands a sample in for all that drew it, and keeps its entries for each while somebody holds its Context; the
        requests that this ends."""
        covered, entries = self._cut(at)
        ended = []
        for member in members:
            request = member.request
            request.count(generated=len(sample.token_ids), computed=request.decoded)
            request.decoded = 0
            context = Context(self.rows[at].draft.context, sample.token_ids)
            self.store.put(context, Kept(covered, entries=entries))
            request.samples[member.index] = replace(sample, context=context)
            self._left.append(member)
            if len(request.samples) == request.n:
                self._active.discard(request)
                ended.append(request)
        return ended

    def _cut(self, at: int) -> tuple[int, tuple[Tensor, Tensor]]:
        """How many tokens of its own a row has, and their entries."""
        row = self.rows[at]
        keys, values = self._tails.cut(at, row.length)
        if row.own:
            before = self.pages.load([page for piece in row.own for page in piece])
            keys, values = (torch.cat(parts, dim=2) for parts in zip(before, (keys, values), strict=True))
        return keys.shape[2], (keys, values)

    # --- rows

    def _turn_over(self) -> None:
        """Moves full tails into pages."""
        full = [(at, row) for at, row in enumerate(self.rows) if row.length == PIECE]
        if not full:
            return
        taken: list[int] = []
        for _, row in full:
            piece = tuple(self.pages.take(PAGES))
            row.own, row.length = (*row.own, piece), 0
            taken += piece
        index = torch.tensor([at for at, _ in full], device=self.network.device)
        pages, slots = np.repeat(taken, PAGE), np.tile(np.arange(PAGE), len(taken))
        self.pages.store(pages, slots, *(block[:, index].transpose(1, 2).flatten(2, 3) for block in self._tails.blocks))

    def _regroup(self, branches: Sequence[Sequence[Branch]]) -> None:
        """Gives every branch of a row a row of its own and closes the gaps."""
        splits: list[tuple[int, Branch]] = []  # from which row
        holes: list[int] = []
        for at, going in enumerate(branches):
            if not going:
                holes.append(at)
                continue
            self.rows[at].members, self.rows[at].draft, self.rows[at].token = going[0]
            splits += [(at, branch) for branch in going[1:]]
        for hole in holes:
            self.pages.release(self.rows[hole].pages)
        self._tails.reserve(len(self.rows) + len(splits))
        for source, branch in splits:
            before = self.rows[source]
            row = Row(branch.members, branch.draft, before.prompt, before.own, before.length, branch.token)
            self.pages.hold(row.pages)
            target = holes.pop() if holes else len(self.rows)
            if target == len(self.rows):
                self.rows.append(row)
            self.rows[target] = row
            self._tails.copy(source, target, row.length)
        self._close(holes)

    def _close(self, holes: Iterable[int]) -> None:
        """Moves rows from the end into empty places, so that the running rows are the first ones."""
        for hole in sorted(holes, reverse=True):
            last = self.rows.pop()
            if hole < len(self.rows):
                self._tails.copy(len(self.rows), hole, last.length)
                self.rows[hole] = last

    def _drop_cancelled(self) -> None:
        cancelled = {request for request in self._active if request.cancelled}
        if not cancelled:
            return
        self._active -= cancelled
        holes = []
        for at, row in enumerate(self.rows):
            for request in {member.request for member in row.members if member.request.cancelled}:
                request.count(computed=request.decoded)
                request.decoded = 0
            self._left += [member for member in row.members if member.request.cancelled]
            row.members = [member for member in row.members if not member.request.cancelled]
            if not row.members:
                holes.append(at)
                self.pages.release(row.pages)
        self._close(holes)


def _answer(prompt: Prompt, value: float | None) -> list[Request]:
    """Tells everybody the value; finished are those who asked for nothing else. Raises UserError for no number."""
    if value is not None and not math.isfinite(value):
        raise UserError(f"the value head gives {value}: its weights or the model's overflow")
    for request in prompt.requests:
        request.value = value
    return [request for request in prompt.requests if request.n == 0]

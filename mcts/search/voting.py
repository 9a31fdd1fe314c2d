"""How several answers to one question become one: majority (Maj@k) and value-weighted vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcts.search.expansion import Grader


@dataclass(frozen=True)
class Candidate:
    """An answer that takes part in a vote, with the value head's estimate of its solution."""

    final_answer: str
    value: float
    tag: str
    run: int


@dataclass(frozen=True)
class Decision:
    """The answer of a question. votes: how many candidates agree with it; candidates: how many there were."""

    final_answer: str
    tag: str
    run: int
    votes: int
    candidates: int


async def same_answer(first: str, second: str, grader: Grader | None) -> bool:
    """Whether two answers say the same: equal texts, or equal for the grader. Undecided is not the same."""
    if first.strip() == second.strip():
        return True
    return grader is not None and bool(await grader([first], second))


async def _groups(candidates: Sequence[Candidate], grader: Grader | None) -> list[list[Candidate]]:
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        for group in groups:
            if await same_answer(group[0].final_answer, candidate.final_answer, grader):
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    return groups


def _weight(group: Sequence[Candidate], by_value: bool) -> float:
    """The number of votes, or the sum of the values moved to (0, 2), so that a doubtful vote never counts against."""
    return sum(1.0 + max(-1.0, candidate.value) if by_value else 1.0 for candidate in group)


async def decide(candidates: Sequence[Candidate], vote: str, grader: Grader | None) -> Decision | None:
    """The winning answer; a tie goes to the group whose first member came first. None without candidates.

    vote: "none" takes the first candidate, "majority" the most frequent answer, "value_weighted" the largest sum.
    """
    if not candidates:
        return None
    if vote == "none":
        winners: Sequence[Candidate] = candidates[:1]
    else:
        groups = await _groups(candidates, grader)
        winners = max(groups, key=lambda group: _weight(group, vote == "value_weighted"))
    best = winners[0]
    return Decision(best.final_answer, best.tag, best.run, len(winners), len(candidates))

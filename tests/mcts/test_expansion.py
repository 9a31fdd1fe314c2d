"""What a step adds to the prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcts.model import Context, Sample
from mcts.search.expansion import common_prefix, continuation
from tests.mcts.conftest import ScriptedModel

TEXT = st.text("ab", max_size=12)


def agreement(first: str, second: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


@given(TEXT, TEXT)
def test_the_common_beginning_of_two_texts(first: str, second: str) -> None:
    assert common_prefix(first, second) == agreement(first, second)


@given(TEXT, TEXT, st.integers(1, 4))
def test_sampled_tokens_are_kept_as_far_as_they_spell_what_is_written(text: str, written: str, size: int) -> None:
    """Tokens of `size` characters: whole ones are kept, the rest is encoded anew, and all spell `written`."""
    ends = (*range(size, len(text), size), len(text)) if text else ()
    starts = (0, *ends)
    sample = Sample(tuple(1000 + i for i in range(len(ends))), text, 0.0, "stop", "", "", ends)
    token_ids, _ = continuation(ScriptedModel(lambda prompt, index: ""), Context(None, ()), sample, written)
    spelled = "".join(text[starts[t - 1000] : ends[t - 1000]] if t >= 1000 else chr(t) for t in token_ids)
    assert spelled == written
    kept = [token for token in token_ids if token >= 1000]
    assert len(kept) == sum(end <= agreement(text, written) for end in ends)

"""The markups by name. A markup is one file in this folder and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mcts.markup.step import Extract, Markup
from mcts.registry import Registry

Make = TypeVar("Make", bound=Callable[["Frame"], Markup])


@dataclass(frozen=True)
class Frame:
    """What a configuration gives a markup to be made of.

    instructions, examples (question, solution): what stands before the question, "" and none with `train_prompt`.
    train_prompt: the prompt that the trained models of the family know, in place of both.
    extract: the answer in a text; None where the caller has no such function.
    published: read steps by the published rules of the family where ours differ.
    keys: what the configuration says of a chat, by the fields of `mcts.markup.chat.Style`, and its preset.
    """

    step_delim: str
    instructions: str = ""
    examples: Sequence[tuple[str, str]] = ()
    train_prompt: bool = False
    extract: Extract | None = None
    published: bool = False
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MarkupEntry:
    """A markup, and what the rest of the house has to know of it.

    make: builds it. step_delim: what stands between steps unless the configuration says otherwise.
    instructions: the file of its instructions; None: its prompt has none and no examples either.
    examples: level of the problems ("math", "gsm8k") → file of worked examples; the first is the default.
    ends_with_eos: a solution ends with the end-of-sequence token; else with a tag of the markup.
    needs_extractor: it takes answers out of prose, with the function that it is given.
    answer_from: where an answer stands: in a field of the markup, in the prose of the solution, or in what the last
        program prints.
    takes_prompt: it shows the instructions and the examples that a configuration names, though it ships none.
    """

    make: Callable[[Frame], Markup]
    step_delim: str = "\n"
    instructions: Path | None = None
    examples: Mapping[str, Path] = field(default_factory=dict)
    ends_with_eos: bool = False
    needs_extractor: bool = False
    answer_from: Literal["field", "prose", "program"] = "field"
    takes_prompt: bool = False

    def examples_file(self, level: str = "") -> Path | None:
        """The worked examples of a level, the default ones where the level has none of its own."""
        return self.examples.get(level, next(iter(self.examples.values()), None))


MARKUPS: Registry[MarkupEntry] = Registry(
    "markup",
    "arbor.markups",
    {
        "react_sft": "mcts.markup.alphamath:REACT_SFT",
        "react": "mcts.markup.alphamath:REACT",
        "tora": "mcts.markup.tora:TORA",
        "pal": "mcts.markup.tora:PAL",
        "cot": "mcts.markup.tora:COT",
        "chat": "mcts.markup.chat:CHAT",
    },
)
"""`prompt_wrap` of a configuration → its markup. Another package adds one with `register_markup`, or with an entry
point of the group `arbor.markups` that names a MarkupEntry."""


def register_markup(name: str, **keys: Any) -> Callable[[Make], Make]:
    """A decorator that registers what makes a markup (a function or a class that takes a Frame). keys: fields of
    MarkupEntry. Raises TypeError for others."""

    def add(make: Make) -> Make:
        MARKUPS.add(name, MarkupEntry(make, **keys))
        return make

    return add

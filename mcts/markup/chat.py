"""Chats with instruction-tuned models (`chat`): the model's own chat template lays out the turns, and a `Style` says
how a family writes: where a step ends, how it thinks, how it is shown what its code printed, where its answer stands.

A thinking section is a step of its own. It stays in the context, holds no answer, and is closed for the model where
its budget of tokens ends. Not covered: calls of other tools than Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from mcts.errors import UserError, nearest
from mcts.markup.registry import Frame, MarkupEntry
from mcts.markup.step import Extract, Markup, Step
from mcts.markup.tora import Chat, CotMarkup, ToraMarkup
from mcts.markup.visible import thinking, visible
from mcts.model import Conversation, Finish, Message

StepCut = Literal["paragraph", "heading", "code", "turn"]
ObservationAs = Literal["output", "user", "tool"]
AnswerBy = Literal["box", "marker", "statement"]
_HEADINGS = ("\n\n## Step", "\n## Step")
_ASKS_FOR_OUTPUT = "```output"


@dataclass(frozen=True)
class Style:
    """How a family of chat models writes.

    system: the system prompt; None: what the template puts there. user: the question's turn, with {question}.
    cut: a step is a paragraph, a section under "## Step n", text up to the end of its code, or a whole turn.
    observation: what code printed stands in an ```output block of the model's own turn, in a turn of the user, or in
        one of a tool.
    answer: the last box, anything that the text calls its answer, or else what its last sentence ends with.
    thinks: the tag that opens a thinking section, such as "<think>"; "": the model does not think.
    thinking_tokens: after so many tokens the section is closed; None: never, it has to fit a step.
    template: a file with a Jinja chat template; None: the tokenizer's own. options: further variables of the template.
    """

    system: str | None = None
    user: str = "{question}"
    cut: StepCut = "paragraph"
    observation: ObservationAs = "output"
    answer: AnswerBy = "statement"
    thinks: str = ""
    thinking_tokens: int | None = None
    template: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs_code(self) -> bool:
        return self.cut in ("code", "turn")

    @property
    def closes(self) -> str:
        """The tag that closes a thinking section."""
        for opening, closing in (("begin", "end"), ("START", "END")):
            if opening in self.thinks:
                return self.thinks.replace(opening, closing)
        return f"{self.thinks[:1]}/{self.thinks[1:]}"


def style_of(preset: str | None, keys: Mapping[str, Any]) -> Style:
    """The style of a preset with `keys` (fields of `Style`) over it. Raises UserError."""
    from mcts.markup.presets import PRESETS

    if preset is not None and preset not in PRESETS:
        known = ", ".join(sorted(PRESETS))
        raise UserError(f"chat_preset {preset!r}: unknown{nearest(preset, PRESETS)} (known: {known})")
    style = Style() if preset is None else PRESETS[preset]
    options = {**style.options, **keys.get("options", {})}
    style = replace(style, **{**keys, "options": options})
    if "{question}" not in style.user:
        raise UserError(f"user_prompt {style.user!r:.60}: expected {{question}} where the question stands")
    if style.thinking_tokens is not None and not style.thinks:
        raise UserError('thinking_tokens bounds a thinking section: name its tag, such as thinking_tag: "<think>"')
    return style


class ChatMarkup:
    """See the module. examples (question, solution) are earlier turns."""

    def __init__(
        self,
        style: Style,
        extract: Extract,
        examples: Sequence[tuple[str, str]] = (),
        template: str = "",
        published: bool = False,
    ) -> None:
        """template: the text of the user's own chat template."""
        self.style, self.template = style, template
        self.messages = _leading(style, examples)
        found = _by(style.answer, extract)
        reader = _Programs if style.runs_code else _Prose
        self._reader: Markup = reader(style, found, published)
        self.step_delim: str = self._reader.step_delim
        self.stop: tuple[str, ...] = self._reader.stop

    def prompt(self, question: str) -> Conversation:
        asked = Message("user", self.style.user.replace("{question}", question))
        opening = f"{self.style.thinks}\n" if self.style.thinks else ""
        return self.conversation((*self.messages, asked), opening=opening)

    def conversation(self, messages: tuple[Message, ...], **keys: Any) -> Conversation:
        return Conversation(messages, template=self.template, options=self.style.options, **keys)

    def thinking(self, before: str) -> bool:
        """Whether a thinking section is open behind `before`."""
        return bool(self.style.thinks) and thinking(self.style.thinks + before)

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        if not self.thinking(before):
            return self._reader.read(text, before, finish, stop)
        closing = self.style.closes
        if closing in text:  # the configuration named other stop strings, or the server sent the whole turn
            thought, _, said = text.partition(closing)
            step = self._reader.read(said, before + thought + closing, finish, stop)
            return replace(step, text=thought + closing + step.text)
        if stop == closing:
            return Step(text + closing, thought=True)
        if finish == "length" and self.style.thinking_tokens is not None:
            return Step(f"{text}\n{closing}", thought=True, added=f"\n{closing}")
        return Step(text)

    def limits(self, before: str, spent: int, max_tokens: int) -> tuple[tuple[str, ...] | None, int]:
        """A thinking section ends with its tag, or where its budget does; a whole turn holds both."""
        if not self.thinking(before):
            return None, max_tokens
        budget = self.style.thinking_tokens
        stop = () if self.style.cut == "turn" and budget is None else (self.style.closes,)
        return stop, max_tokens if budget is None else max(1, budget - spent)

    def observed(self, step: Step, observation: str) -> str:
        return self._reader.observed(step, observation)

    def reply(self, observation: str) -> Conversation | None:
        match self.style.observation:
            case "output":
                return None
            case "user":
                turn = Message("user", f"{_ASKS_FOR_OUTPUT}\n{observation}\n```")
            case "tool":
                turn = Message("tool", observation)
        return self.conversation((turn,), follows=True)

    def parted(self, text: str) -> tuple[str, Conversation] | None:
        said, output, rest = text.partition(f"\n{_ASKS_FOR_OUTPUT}\n")
        reply = self.reply(rest.removesuffix("```").removesuffix("\n")) if output else None
        return None if reply is None else (said, reply)

    def written(self, text: str) -> int:
        return self._reader.written(text)


def _leading(style: Style, examples: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    """The turns before the question."""
    system = [] if style.system is None else [Message("system", style.system)]
    shown = [
        turn
        for question, solution in examples
        for turn in (Message("user", style.user.replace("{question}", question)), Message("assistant", solution))
    ]
    return (*system, *shown)


def _by(answer: AnswerBy, extract: Extract) -> Extract:
    """`extract`, bound to where answers stand."""

    def found(text: str, *, stated: bool = False) -> str:
        if answer == "box" and r"\boxed" not in visible(text):
            return ""
        return extract(text, stated=stated or answer != "statement")

    return found


class _Prose(CotMarkup):
    """Steps of prose: paragraphs, or sections under a heading."""

    def __init__(self, style: Style, extract: Extract, published: bool) -> None:
        super().__init__(Chat(), extract, "\n\n", published)
        self.cuts: tuple[str, ...] = ("\n\n",) if style.cut == "paragraph" else _HEADINGS
        self.stop = self.cuts

    def read(self, text: str, before: str = "", finish: Finish = "stop", stop: str = "") -> Step:
        return super().read(text, before, finish, self.step_delim if stop in self.cuts else stop)


class _Programs(ToraMarkup):
    """Steps that may hold code, which runs."""

    def __init__(self, style: Style, extract: Extract, published: bool) -> None:
        super().__init__(Chat(), extract, "\n", published)
        self.style = style
        self.stop = (_ASKS_FOR_OUTPUT,)

    def _answer(self, said: str, before: str) -> str:
        return super()._answer(said, before) if self.style.answer == "statement" else self.extract(said)


def _make(frame: Frame) -> ChatMarkup:
    assert frame.extract is not None
    style = style_of(frame.keys.get("preset"), {key: frame.keys[key] for key in STYLE_KEYS if key in frame.keys})
    if frame.instructions and "system" not in frame.keys:
        style = replace(style, system=frame.instructions)
    template = "" if style.template is None else Path(style.template).read_text(encoding="utf-8")
    return ChatMarkup(style, frame.extract, frame.examples, template, frame.published)


STYLE_KEYS = tuple(one.name for one in fields(Style))
CHAT = MarkupEntry(_make, "\n\n", ends_with_eos=True, needs_extractor=True, takes_prompt=True)

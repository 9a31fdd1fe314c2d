"""What a model says, without what it thinks: a draft in a thinking section is no answer, and its code does not run."""

from __future__ import annotations

import re

_TAG = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning|analysis|scratchpad|reflection|inner_monologue)"
_OPEN = rf"<{_TAG}\s*>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING)\|>"
_CLOSE = rf"</{_TAG}\s*>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING)\|>"
_TAGS = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?P<name>\w+)[^<]*<\|message\|>(?P<text>.*?)(?=<\|(?:end|return|call)\|>|\Z)", re.DOTALL
)
_BARE_CHANNEL = re.compile(r"\s*analysis.*assistant\s*final", re.DOTALL)  # special tokens left out
_END_TOKENS = re.compile(
    r"<\|(?:im_end|end|eot_id|eom_id|endoftext|end_of_text|return|end_of_turn|END_OF_TURN_TOKEN|assistant_end)\|>"
    r"|<end_of_turn>|</s>|<eos>|<｜end▁of▁sentence｜>|<\|im_start\|>.*"
)
_SOLUTION_TAGS = re.compile(r"<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>")


def visible(text: str) -> str:
    """The text without thinking sections and without what follows its first end-of-turn token.

    Thinking is what stands between the tags of any known family, everything before a closing tag that was never opened,
    everything behind an opening tag that is never closed, and every channel but the final one.
    """
    if "<|channel|>" in text:
        text = _final_channel(text)
    elif bare := _BARE_CHANNEL.match(text):
        text = text[bare.end() :]
    text = _SOLUTION_TAGS.sub("", _outside(text))
    end = _END_TOKENS.search(text)
    if end is None:
        return text
    before = text[: end.start()]
    return before if before.strip() else visible(text[end.end() :])


def thinking(text: str) -> bool:
    """Whether a thinking section is open where the text ends."""
    if channels := re.findall(r"<\|channel\|>\s*(\w+)", text):
        return bool(channels[-1] != "final")
    tags = list(_TAGS.finditer(text))
    return bool(tags) and tags[-1]["open"] is not None


def _outside(text: str) -> str:
    """The text outside of thinking tags."""
    parts: list[str] = []
    inside = False
    at, before = 0, ""
    for tag in _TAGS.finditer(text):
        if not inside:
            parts.append(text[at : tag.start()])
        if tag["close"] and not inside:  # opened in the prompt, or closed twice
            before, parts = "".join(parts) if at else "", []
        inside, at = tag["open"] is not None, tag.end()
    if not inside:
        parts.append(text[at:])
    said = "".join(parts)
    return said if said.strip() else before


def _final_channel(text: str) -> str:
    """What the last final channel says; "" where there is none."""
    final = [message["text"] for message in _CHANNEL.finditer(text) if message["name"] == "final"]
    return final[-1] if final else ""

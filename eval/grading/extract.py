"""The answer that a text gives: from boxes, final-answer lines, "answer is" sentences, program output, last numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from eval.grading.text import closing_brace
from eval.grading.tora import extract_tora, last_output

_FINAL = re.compile(
    r"final answer\s*(?:\*\*)?\s*:\s*(?:the final answer is\s*:?\s*)?(.*?)(?=</p>|</step>|\n\n|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_ANSWER_IS = re.compile(r"answer\s+(?:is|are|=|:)\s*:?\s*(.+)", re.IGNORECASE)
_PROGRAM = re.compile(r"```(?:python|py)\b.*?(?:```|\Z)", re.DOTALL)
_XML_OUTPUT = re.compile(r"<output>\s*(.*?)\s*</output>", re.DOTALL)
_HOPE = re.compile(r"\.?\s*I hope (?:it|this) is correct.*", re.DOTALL | re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?|-?\.\d+")


def extract(text: str, profile: str = "default") -> str:
    """The answer in a model's text, "" where there is none. Raises ValueError for an unknown profile."""
    if profile not in EXTRACTORS:
        raise ValueError(f"profile {profile!r} is unknown: choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[profile](text)


def last_box(text: str) -> str | None:
    """The contents of the last \\boxed or \\fbox that is closed; None without one."""
    return next(reversed(boxes(text)), None)


def boxes(text: str) -> list[str]:
    """The contents of every \\boxed{...} and \\boxed x that is not inside another, in order."""
    found: list[str] = []
    position = 0
    for match in re.finditer(r"\\(?:boxed|fbox)\s*(?:(\{)|([^\s{}$]+))", text):
        if match.start() < position:
            continue
        end = closing_brace(text, match.end()) if match[1] else match.end()
        if end >= 0:
            found.append(text[match.end() : end].strip() if match[1] else match[2])
            position = end
    return found


def _default(text: str) -> str:
    text = _PROGRAM.sub("", text) or text
    if finals := _FINAL.findall(text):
        return _tidy(finals[-1])
    if (box := last_box(text)) is not None:
        return box
    if marked := re.findall(r"####\s*(.+)", text):
        return str(marked[-1]).strip()
    if sentences := _ANSWER_IS.findall(text):
        return _tidy(_SENTENCE_END.split(sentences[-1])[0])
    if outputs := _XML_OUTPUT.findall(text) or [last_output(text)]:
        lines = outputs[-1].splitlines()
        if lines:
            return str(lines[-1]).strip()
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else ""


def _tidy(answer: str) -> str:
    answer = _HOPE.sub("", answer).strip()
    box = last_box(answer)
    return box if box is not None else answer.strip("*").rstrip(".").strip()


def _mario(text: str) -> str:
    """What follows the last "Final Answer:", without a closing tag and one pair of dollar signs."""
    if "Final Answer:" not in text:
        return ""
    answer = re.split(r"</p>|</step>", text.rsplit("Final Answer:", 1)[1])[0].strip()
    return answer[1:-1] if len(answer) > 1 and answer[0] == answer[-1] == "$" else answer


EXTRACTORS: dict[str, Callable[[str], str]] = {
    "default": _default,
    "strict": _default,
    "tora": extract_tora,
    "mario": _mario,
}

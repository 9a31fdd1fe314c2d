"""The answer that a text gives: what it declares (boxes, final-answer lines, tags), "answer is" sentences, the last
output of a program, the quantity that its last sentence ends with.

Where no clear answer stands, there is none: nothing is taken out of thinking sections, programs, error messages or the
middle of a formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from eval.grading.quantity import last_quantity
from eval.grading.text import closing_brace, closing_braces
from eval.grading.tora import extract_tora, last_output
from mcts.interpreter.fences import blocks
from mcts.markup.step import answer_of, printed_answer
from mcts.markup.visible import visible

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\{)|([^\s{}$]+))")
_EMPTY = r"(?:\\[,;:!> ]|\\text\{\s*\}|\\[lc]?dots|\.\.\.|…|\?|(?:your|the|final)?\s*answer(?:\s+here)?|\s)*"
_EMPTY_BOX = re.compile(_EMPTY, re.IGNORECASE)
_NOTHING = re.compile(rf"\\(?:boxed|fbox|framebox)\b(?:\s*\{{{_EMPTY}\}})?", re.IGNORECASE)
_RESTATED = re.compile(
    r"=|\\(?:approx|equiv|Rightarrow|to|implies)|→|⇒|\b(?:no|not|wait|instead|rather|actually|simplif\w*|equals?|equivalent\w*"
    r"|i\.e|that is|reduces|becomes|so|or rather|but|should be)\b|\A\W*is\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|rather than|instead of)\W*\Z", re.IGNORECASE)
_TAG = re.compile(r"<(answer|final_answer)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_BOLD = r"(?:\*\*|__)?"
_DECLARED = re.compile(
    rf"(?:\bfinal\s+answer|^[ \t#>*_-]*(?:the\s+)?(?:correct\s+)?(?:answer|ans))\b\.?[ \t]*{_BOLD}[ \t]*"
    rf"(?:[:：=][ \t]*{_BOLD}|{_BOLD}[ \t]*(?=\n|\Z))|\bfinal\s+answer\s+(?:is|are)\b[ \t]*:?",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(
    r"\banswers?\b(?:\s+(?:to|for|of)\s[^.\n:=]{1,80}?)?\s*(?:\*\*)?\s*"
    r"(?:\b(?:is|are|was|(?:would|will|should|must)\s+be|becomes|equals|comes\s+(?:out\s+)?to)\b|=|:)(?:\*\*)?[ \t]*:?"
    r"|\b(?:option|choice)\s+(?:is|:)|\b(?:correct|right)\s+(?:option|choice|one)\s+is",
    re.IGNORECASE,
)
_CORRECT_OPTION = re.compile(
    r"\(?\b([A-J])\b\)?\s+is\s+(?:the\s+)?(?:correct|right)\b|\bI\s+(?:would\s+)?choose\s+\(?([A-J])\b"
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+)", re.MULTILINE)
_HEADING_WORD = re.compile(
    r"(?:\*\*)?(?:step|part|case|final|answer|solution|conclusion|[A-Z][a-z]+ [a-z])", re.IGNORECASE
)
_XML_OUTPUT = re.compile(r"<output>\s*(.*?)\s*</output>", re.DOTALL)
_HOPE = re.compile(r"[.,;]?\s*I hope (?:it|this) is correct.*", re.DOTALL | re.IGNORECASE)
_ABBREVIATION = re.compile(r"(?:\b(?:Mrs?|Ms|Dr|St|vs|approx|No)|\b[ap]\.m|\bi\.e|\be\.g)\Z", re.IGNORECASE)
_REASON = re.compile(
    r"\s*[,;(]?\s*(?:\b(?:because|since|as|so|which|where|given|considering|hence|thus|therefore|due to|after"
    r"|not|but|rather|instead|and (?:that|this|it|we|so))\b|\bi\.e\b|[—–]\s|:\s(?=[a-z])).*",
    re.DOTALL,
)
_LEAD = re.compile(
    r"(?:(?:therefore|thus|then|hence|clearly|simply|just|exactly|indeed|now|(?:the\s+)?(?:option|choice)|that)\b[,:]?\s+)+",
    re.IGNORECASE,
)
_NO_STATEMENT = re.compile(
    r"(?:not|correct|right|wrong|incorrect|unclear|unknown|uncertain|found|given|obtained|calculated|determined"
    r"|derived|see|shown|stated|as follows|below|above|here|in|to|by|because|whether|what|how|based|the same|still|also"
    r"|consistent|reasonable|needed|required)\b",
    re.IGNORECASE,
)


_TRIED = 32
_STATEMENT_CHARACTERS = 2000


def extract(text: str, profile: str = "default", *, stated: bool = False) -> str:
    """The answer in a model's text, "" where there is none.

    stated: only what the text calls its answer, not the last output of a program or the last number.
    Raises ValueError for an unknown profile.
    """
    if profile not in EXTRACTORS:
        raise ValueError(f"profile {profile!r} is unknown: choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[profile](text, stated)


def boxes(text: str) -> list[str]:
    """The contents of every \\boxed{...} and \\boxed x of a worked solution that is not inside another, in order."""
    found: list[str] = []
    position = 0
    closing = closing_braces(text)
    for match in _BARE_BOX.finditer(text):
        if match.start() < position:
            continue
        end = closing.get(match.end() - 1, -1) if match[1] else match.end()
        if end >= 0:
            found.append(text[match.end() : end].strip() if match[1] else match[2])
            position = end
    return found


def _default(text: str, stated: bool) -> str:
    text = visible(text)
    said = _without_programs(text)
    answer = _declared(said) or _sentence(said)
    if answer or stated:
        return answer
    outputs = _XML_OUTPUT.findall(text) or [last_output(text)]
    if outputs[-1].strip():
        return printed_answer(outputs[-1])
    return last_quantity(said)


def _without_programs(text: str) -> str:
    parts, at = [], 0
    for block in blocks(text):
        if block.python:
            parts.append(text[at : block.start])
            at = block.end
    return "".join([*parts, text[at:]])


def _declared(text: str) -> str:
    """The last answer that the text marks as such."""
    boxed = list(_box_groups(text))[-1:]
    found = [*boxed, *_last(_TAG, text, _tagged), *_last(_DECLARED, text, _follows), *_last(_HASHES, text, _hashed)]
    return max(found)[1] if found else ""


def _last(marker: re.Pattern[str], text: str, read: Callable[[re.Match[str]], str]) -> list[tuple[int, str]]:
    """(position, answer) of the last place that a marker gives an answer at; of many places only the last are tried."""
    for match in list(marker.finditer(text))[: -_TRIED - 1 : -1]:
        if answer := read(match):
            return [(match.start(), answer)]
    return []


def _tagged(match: re.Match[str]) -> str:
    return _tidy(match[2][:_STATEMENT_CHARACTERS])


def _follows(match: re.Match[str]) -> str:
    start = match.end()
    return _statement(match.string[start : start + _STATEMENT_CHARACTERS].lstrip("*_ \t\n\r"))


def _hashed(match: re.Match[str]) -> str:
    return "" if _HEADING_WORD.match(match[1]) else _tidy(match[1][:_STATEMENT_CHARACTERS])


def _box_groups(text: str) -> Iterator[tuple[int, str]]:
    """(position, answer) of the boxes; those of one sentence are a list, unless the later restates the earlier."""
    group: list[str] = []
    before = 0
    for start, end, content in _full_boxes(text):
        between = text[before:start]
        if group and _DENIED.search(between):
            before = end
            continue
        if group and (not _one_sentence(between) or _RESTATED.search(_unlabelled(between))):
            group = []
        if content not in group:
            group.append(content)
        before = end
        yield start, ", ".join(group)


def _full_boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, contents) of every closed box that holds something and is not inside another."""
    position = 0
    closing = closing_braces(text)
    for match in _BOX.finditer(text):
        end = closing.get(match.end() - 1, -1)
        if match.start() < position or end < 0:
            continue
        content = text[match.end() : end].strip()
        position = end
        if not _EMPTY_BOX.fullmatch(content):
            yield match.start(), end + 1, content


def _one_sentence(between: str) -> bool:
    return "\n\n" not in between and not re.search(r"[.!?](?:\s|\$|\*)|\n\s*(?:[-*\d#]|\\item)", between)


def _unlabelled(between: str) -> str:
    """Without the names of values: "x = 1 and y = 2" restates nothing."""
    return re.sub(
        r"(?:^|[\s,;$(])\\?[a-zA-Z](?:_\{?\w+\}?|')*(?:\([a-z0-9]\))?\s*(?:=|\bis\b)\s*\$?\s*\Z", " ", between
    )


def _sentence(text: str) -> str:
    """What the last sentence that says so calls the answer."""
    options = _last(_CORRECT_OPTION, text, lambda match: match[1] or match[2])
    found = [*_last(_SENTENCE, text, _follows), *options]
    return max(found)[1] if found else ""


def _statement(rest: str) -> str:
    """The answer at the beginning of a text, up to the end of its sentence; "" where the sentence gives none."""
    nested = _SENTENCE.search(rest.partition("\n")[0])
    if nested is not None and nested.start() < 20:  # "Final Answer: The final answer is ..."
        rest = rest[nested.end() :].lstrip()
    end = _sentence_end(rest)
    sentence = rest[:end].strip("*_ \t")
    sentence = sentence[lead.end() :] if (lead := _LEAD.match(sentence)) else sentence
    if rest[end : end + 1] == "?" or _NO_STATEMENT.match(sentence):
        return ""
    return _tidy(sentence)


def _sentence_end(text: str) -> int:
    """Where the first sentence of a text ends, outside of formulas."""
    at = 0
    while at < len(text):
        if (end := _formula_end(text, at)) > at:
            at = end
            continue
        sign, after = text[at], text[at + 1 : at + 2]
        if sign == "\n" or text.startswith(("</", "<|"), at):
            return at
        if sign in ".?" and (not after or after in " \n\t*\"')") and not _ABBREVIATION.search(text[:at]):
            return at
        if sign == "!" and re.match(r"[*\"')]*(?:\s+[A-Z]|\s*\Z|\n)", text[at + 1 :]):
            return at
        at += 1
    return at


_INLINE = re.compile(r"\$[^\n$]*(?<!\s)\$(?!\d)")
_FORMULAS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def _formula_end(text: str, at: int) -> int:
    """The end of the formula or group that begins at `at`; `at` where none does."""
    for opening, closing in _FORMULAS:
        if text.startswith(opening, at):
            end = text.find(closing, at + len(opening))
            if end < 0 or (opening == "$" and not _INLINE.match(text, at)):  # money, or a stray sign
                return at
            return end + len(closing)
    if text.startswith(r"\begin{", at):
        name = text[at + 7 : text.find("}", at)]
        end = text.find(rf"\end{{{name}}}", at)
        return end + len(name) + 6 if end >= 0 else at
    if text[at] == "{":
        return closing_brace(text, at + 1) + 1 or at
    return at


def _tidy(answer: str) -> str:
    """An answer without what only surrounds it: its box, emphasis, the reason behind it, the full stop."""
    answer = _HOPE.sub("", answer).strip()
    found = [answer for _, answer in _box_groups(answer)]
    if found:
        return found[-1]
    reason = next((match for match in _REASON.finditer(answer) if not _in_formula(answer, match.start())), None)
    if reason is not None and answer[: reason.start()].strip():
        answer = answer[: reason.start()]
    answer = answer.strip().strip("*").rstrip(".,;:").strip()
    answer = re.sub(r"\A(`+|\"|')(.*)\1\Z", r"\2", answer)
    return answer_of(answer) if re.search(r"[^\W_]|[^\s\w$\\(){}\[\].,*-]", _NOTHING.sub("", answer)) else ""


def _in_formula(text: str, position: int) -> bool:
    at = 0
    while at <= position:
        end = _formula_end(text, at)
        if at < position < end:
            return True
        at = max(end, at + 1)
    return False


def _mario(text: str, stated: bool) -> str:
    """What follows the last "Final Answer:", without a closing tag and one pair of dollar signs."""
    if "Final Answer:" not in text:
        return ""
    answer = re.split(r"</p>|</step>", text.rsplit("Final Answer:", 1)[1])[0].strip()
    return answer[1:-1] if len(answer) > 1 and answer[0] == answer[-1] == "$" else answer


def _tora(text: str, stated: bool) -> str:
    return "" if stated and not re.search("boxed|he answer is", text) else extract_tora(text)


EXTRACTORS: dict[str, Callable[[str, bool], str]] = {
    "default": _default,
    "strict": _default,
    "tora": _tora,
    "mario": _mario,
}

"""The accepted answers that a data set states for a question, read from whatever form its column has."""

from __future__ import annotations

import ast
import re
from decimal import Decimal
from fractions import Fraction
from math import isfinite

from eval.grading.extract import boxes

FORMS = 'a text, a number, or a list of them; a solution ends in "#### ANSWER" or has its answer in \\boxed{}'
_MARK = "####"
_SENTENCE = re.compile(r"\b(?:the|final)\s+answer\s+is\s*:?\s*(\S[^\n.]*(?:\.\d[^\n.]*)*)\.?\s*\Z", re.IGNORECASE)
_QUOTED_LIST = re.compile(r"\[\s*(['\"]).*\1\s*,?\s*\]", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"(?:[\s$.,;&]|\\text\{[^{}]*\}|\\[(),;:! ]|\\quad|\b(?:and|or)\b)*")


def read_gold(answer: object) -> tuple[str, ...]:
    """The accepted answers, at least one, each a text that is not empty.

    A text gives what follows its last `####`, else its last box, else what "the answer is" at its end, else itself;
    a number gives its shortest spelling (18.0 gives 18); a list gives the answers of its elements.
    Raises ValueError for what is no answer: None, a truth value, an object, NaN, "", [].
    """
    if hasattr(answer, "tolist"):
        answer = answer.tolist()  # of numpy or torch
    if isinstance(answer, list | tuple | set | frozenset):
        golds = tuple(gold for one in answer for gold in read_gold(one))
        if not golds:
            raise ValueError(f"an empty list is no answer; expected {FORMS}")
        return tuple(dict.fromkeys(golds))
    if isinstance(answer, str):
        return _text(answer)
    if isinstance(answer, bool) or not isinstance(answer, int | float | Decimal | Fraction) or not isfinite(answer):
        raise ValueError(f"{str(answer)[:60]!r} ({type(answer).__name__}) is no answer; expected {FORMS}")
    return (str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer),)


def _text(text: str) -> tuple[str, ...]:
    text = text.strip()
    if _QUOTED_LIST.fullmatch(text) and (listed := _literal_list(text)) is not None:
        return read_gold(listed)
    gold = _stated(text)
    if not gold:
        raise ValueError(f"{text[-60:]!r} states no answer; expected {FORMS}")
    return (gold,)


def _literal_list(text: str) -> list[str] | None:
    """The elements of a list of quoted texts, as JSON or Python prints it; None for anything else."""
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return listed if isinstance(listed, list) and all(isinstance(one, str) for one in listed) else None


def _stated(text: str) -> str:
    if _MARK in text:
        text = text.rsplit(_MARK, 1)[1].strip()
        text = text.splitlines()[0].strip() if text else ""
    if found := [box for box in boxes(text) if box]:
        rest = re.sub(r"\\(?:boxed|fbox)\s*", "", text)
        for box in found:
            rest = rest.replace(box, "", 1)
        only_boxes = _BETWEEN_BOXES.fullmatch(re.sub(r"[{}]", "", rest)) is not None
        return ", ".join(found) if only_boxes else found[-1]
    if "boxed" in text and re.fullmatch(r"[\s$]*\\(?:boxed|fbox)\s*(?:\{\s*\}?)?[\s$.]*", text):
        return ""
    sentence = _SENTENCE.search(text)
    whole = sentence is None or sentence[1].count("{") != sentence[1].count("}")
    return (text if whole or sentence is None else sentence[1]).strip()

"""The profile `tora`: answers normalised and compared the way the published ToRA figures were.

For reproducing those figures only. It drops percent signs, units and the word "and", ignores whether an interval
is open, reads the longest beginning that parses, and accepts a factor of 100: `default` does none of this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from eval.grading.verdict import Grade, different, equal

_DELETED_FIRST = re.compile(r"\\!|\\ ")
_SUBSTITUTIONS = [
    (r"\\\\", r"\\"),
    (r"\\\\", r"\\"),
    (r"[td]frac", "frac"),
    (r"\\left|\\right", ""),
    (r"(?<=.)\\text\{.*?\}$", ""),
    (r"\^\{\\circ\}|\^\\circ|\\?\$", ""),
    (r"\\text|x\\in", ""),
    (r"\\?%", ""),
    (r" \.", " 0."),
    (r"\{\.", "{0."),
    (r"\\cdot", ""),
    (r"(?<!\\)infinity", r"\\infty"),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _SUBSTITUTIONS]


def strip_string(text: object) -> str:
    """The normal form of an answer in ToRA-style files."""
    string = _DELETED_FIRST.sub("", str(text).strip().replace("\n", "").rstrip("."))
    for pattern, replacement in _COMPILED:
        string = pattern.sub(replacement, string)
    if r"\infty" not in string:
        string = string.replace("inf", r"\infty")
    string = re.sub(r"\\mbox\{.*?\}", "", string.replace("and", "").replace(r"\mathbf", ""))
    if "j" in string and "i" not in string:
        string = string.replace("j", "i")
    string = re.sub(r"(\d+)\.0+(?=\D|$)", r"\1", string)
    if not string:
        return string
    if string.startswith("."):
        string = "0" + string
    left, *rest = string.split("=")
    if len(rest) == 1 and len(left) <= 2:
        string = rest[0]
    string = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", string).replace(" ", "")
    string = re.sub(
        r"\\frac([^{])(?:([^{])|(?=\{))", lambda m: rf"\frac{{{m[1]}}}" + (f"{{{m[2]}}}" if m[2] else ""), string
    )
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", string)


def math_equal(prediction: str, reference: str) -> bool:
    """Numbers within 1e-4 up to a factor of 100, then text without brackets, then lists, then algebra."""
    first, second = _float(prediction), _float(reference)
    if first is not None and second is not None:
        return any(math.isclose(target, first, rel_tol=1e-4) for target in (second / 100, second, second * 100))
    if not prediction:
        return False
    if _bare(prediction, reference) == _bare(reference, prediction):
        return True
    for ends in ("[]", "()"):
        if all(text.startswith(ends[0]) and text.endswith(ends[1]) for text in (prediction, reference)):
            parts = [text[1:-1].split(",") for text in (prediction, reference)]
            if len(parts[0]) == len(parts[1]) and all(map(math_equal, *parts)):
                return True
    return _symbolic_equal(prediction, reference)


def _float(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _bare(text: str, other: str) -> str:
    """Without brackets of any kind; the outer pair only where the other side has no pair of another kind."""
    outer = {"[": "(", "(": "["}.get(text[:1], "")
    if outer and not other.startswith(outer):
        text = text.strip("[]()")
    return re.sub(r"[{}()]", "", text)


def _symbolic_equal(prediction: str, reference: str) -> bool:
    import sympy

    from eval.grading.latex import Unreadable

    try:
        first, second = _parse(prediction), _parse(reference)
        if sympy.simplify(first - second) == 0:
            return True
        return math.isclose(float(sympy.N(first)), float(sympy.N(second)), rel_tol=1e-3)
    except (Unreadable, TypeError, ValueError, AttributeError, ArithmeticError, NotImplementedError):
        return False


def _parse(text: str) -> Any:
    """The text as sympy's LaTeX reader takes it: pi is a symbol, a word a product, the rest after an error dropped."""
    from eval.grading.latex import Unreadable, parse_prefix

    if re.search(r"[%$;\"]|\\[{}]", text):
        raise Unreadable("signs that the reader refuses")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).replace(r"\pi", r"\hbar ")
    text = re.sub(r"(?<=\d)(?=\\frac)", "*", text)
    return parse_prefix(
        re.sub(r"\\[a-zA-Z]+|[a-zA-Z]{2,}", lambda m: m[0] if m[0][0] == "\\" else " ".join(m[0]), text)
    )


def grade_tora(gold: str, prediction: str) -> Grade:
    """Both sides normalised, then compared; this profile knows no undecided."""
    if math_equal(strip_string(prediction), strip_string(gold)):
        return equal("equal under the tora profile")
    return different("different under the tora profile")


def extract_tora(text: str) -> str:
    """The answer in a ToRA-style output: the last box, "he answer is", the last output block, the last number."""
    if "boxed" in text:
        answer = _last_box(text)
    elif "he answer is" in text:
        answer = text.rsplit("he answer is", 1)[1].strip()
    elif output := last_output(text):
        answer = output
    else:
        numbers = re.findall(r"-?\d*\.?\d+", text.replace(",", ""))
        answer = numbers[-1] if numbers else ""
    line = answer.split("\n")[0].removeprefix(":").removesuffix(".").removesuffix("/")
    return strip_string(line)


def _last_box(text: str) -> str:
    from eval.grading.text import closing_brace

    after = text.rsplit("boxed", 1)[1]
    if not after.startswith("{"):
        return after.split("$")[0].strip()
    end = closing_brace(after, 1)
    return after[1:end] if end >= 0 else after[1:]


def last_output(text: str) -> str:
    """The contents of the last output block of a trajectory, or "" when there is none."""
    blocks = re.findall(r"```output\n(.*?)(?:\n```|$)", text, re.DOTALL)
    return blocks[-1].strip() if blocks else ""


_RATIONALES = {"math": "solution", "gsm-hard": "code", "svamp": "equation", "asdiv": "formula", "tabmwp": "solution"}


def reference_fields(name: str, row: Mapping[str, Any], answer: str) -> dict[str, str]:
    """`gt_cot` and `gt` of the data set `name` as ToRA's files hold them; `answer` is the gold in its own notation."""
    if name == "gsm8k":
        rationale = str(row["answer"]).split("####")[0].strip()
    else:
        rationale = str({key.lower(): value for key, value in row.items()}.get(_RATIONALES.get(name, "")))
    if name == "tabmwp" and row["ans_type"] in ("integer_number", "decimal_number"):
        answer = str(_table_number(answer))
    return {"gt_cot": rationale, "gt": strip_string(answer)}


def _table_number(text: str) -> float:
    above, slash, below = text.partition("/")
    if slash:
        return int(above) / int(below)
    number = float(text.replace(",", "").rstrip("%"))
    return number / 100 if text.endswith("%") else number

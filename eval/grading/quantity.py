"""The quantity that a text ends with, where it calls nothing its answer. A number is never cut out of a formula."""

from __future__ import annotations

import re

_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$(?!\s)([^$\n]+?)(?<![\\\s])\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_PLACE = "\ue000"  # stands for a formula in a sentence
_NUMBER = re.compile(
    r"(?P<sign>[-+−–]?)[$€£]?(?P<value>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
    r"(?P<rest>(?:[eE][-+−]?\d+)?(?:/\d+(?:\.\d+)?)?(?::\d+)?%?)(?P<unit>°|[a-zA-Z]{1,4})?"
)
_SCALE = re.compile(r"(?:hundred|thousand|million|billion|trillion|dozen|percent)")
_GOES_ON = re.compile(r"[%½⅓⅔¼¾π√]|\\")
_RANGE = re.compile(r"\d\S*\s+(?:to|in|or|by|per|through|out of)\Z")
_IS = frozenset({"is", "equals", "=", "get", "gives", "becomes", "obtain", "≈"})
_OPERATOR = re.compile(r"[-+*/×÷·^<>≤≥±−]|\\(?:times|cdot|div|pm|le|ge|leq|geq|lt|gt)|[<>]=|\*\*")
_LABEL = re.compile(r"(?:step|case|eq(?:uation)?|problem|part|figure|line|example|theorem|question|chapter|row|table)")
_NO_CONCLUSION = re.compile(
    r"\b(?:cannot|can't|can not|unable|do(?:es)?(?: not|n't) (?:know|work|help)|not (?:sure|certain|enough|possible)"
    r"|impossible|error|gave up|give up|let (?:me|us)|let's|suppose|assume|wait|need to|try|between [$\d]"
    r"|or (?:more|less|fewer))\b|\bprint\(",
    re.IGNORECASE,
)
_MARK = re.compile(r"\s*(?:[-*•>#]+\s+|\d+[.)]\s+|(?:\*\*)?step\s*\d+\s*[.:)]?(?:\*\*)?\s*)+", re.IGNORECASE)
_WRAPPERS = "*_`\"'([{<>}]),;:!?…"


def last_quantity(text: str) -> str:
    """The quantity in the last sentence of a text, "" where it has none or is no conclusion."""
    formulas: list[str] = []

    def keep(match: re.Match[str]) -> str:
        formulas.append(next(part for part in match.groups() if part is not None).strip())
        return f"{_PLACE}{len(formulas) - 1}{_PLACE}"

    held = _FORMULA.sub(keep, text)
    lines = [line for line in held.split("\n") if line.strip(" \t`~*#->_")]
    if not lines:
        return ""
    sentence = re.split(r"(?<=[.!?])\s+", _MARK.sub("", lines[-1], count=1).strip())[-1]
    if _NO_CONCLUSION.search(sentence) or sentence.rstrip("*_ ").endswith("?"):
        return ""
    tokens = sentence.split()
    places = [at for at, token in enumerate(tokens) if re.search(r"\d", token)]
    return _quantity(tokens, places[-1], formulas) if places else ""


def _quantity(tokens: list[str], at: int, formulas: list[str]) -> str:
    """The quantity at a token that holds a digit; "" where it belongs to something larger."""
    before = tokens[at - 1] if at else ""
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    if _operates(before) or _operates(after) or _LABEL.fullmatch(before.lower().strip(_WRAPPERS)):
        return ""
    if _RANGE.search(" ".join(tokens[max(0, at - 3) : at])) or "not" in tokens[max(0, at - 2) : at]:
        return ""
    token = tokens[at].strip(_WRAPPERS).rstrip(".")
    if listed := _listed(tokens, at):
        return listed
    if place := re.fullmatch(f"{_PLACE}(\\d+){_PLACE}", token):
        return _right_side(formulas[int(place[1])])
    if _PLACE in token or not _balanced(tokens[at].strip("*_`.,;:!")):
        return ""
    number = _number(token)
    if not number:
        return _formula(tokens[at].strip("*_`.,;:!"), before)
    if re.fullmatch(r"-?\d+", before) and re.fullmatch(r"\d+/\d+", number):
        return f"{before} {number}"  # a mixed number
    if _GOES_ON.match(after):
        return f"{number}%" if after.lstrip("\\").startswith("%") else ""
    scale = after.strip(_WRAPPERS + ".").lower()
    return f"{number} {scale}" if _SCALE.fullmatch(scale) else number


def _listed(tokens: list[str], at: int) -> str:
    """The list that ends at a token, such as "3, 4 and 5" or "(3, 4)"; "" where there is none."""
    first = at
    while first:
        linked = 2 if tokens[first - 1] in ("and", "&") else 1
        if linked > first or (linked == 1 and not tokens[first - 1].endswith(",")):
            break
        if not re.search(r"\d", tokens[first - linked]):
            break
        first -= linked
    listed = " ".join(tokens[first : at + 1]).strip("*_`.;:!")
    whole = re.fullmatch(r"[(\[{]?(?:[-+−]?[\d.,/]+(?:,?\s+(?:and|&))?\s+)+[-+−]?[\d.,/]+[)\]}]?", listed)
    return listed if whole and _balanced(listed) else ""


def _formula(token: str, before: str) -> str:
    """A token that is a formula: the number behind its last equals sign, or all of it where it stands for a value."""
    equation, sign, tail = token.rpartition("=")
    if sign and (number := _number(tail)):
        return number
    value = tail.startswith(("\\", "-\\")) or before.lower() in _IS
    return tail if value and _balanced(tail) and not re.match(r"[a-z_]\w+\(", equation or tail) else ""


def _number(token: str) -> str:
    """A number without its currency sign, with an ASCII minus; "" for any other token."""
    match = _NUMBER.fullmatch(token)
    if match is None:
        return ""
    sign = "-" if match["sign"] in ("-", "−", "–") and match["sign"] else ""
    return sign + match["value"] + match["rest"].replace("−", "-") + (match["unit"] or "")


def _right_side(formula: str) -> str:
    """What a formula comes to: the right side of its last equation, all of another formula."""
    tail = (
        re.split(r"(?<![<>!\\])=(?!=)|\\(?:approx|Rightarrow|implies)(?![a-zA-Z])", formula)[-1].strip().rstrip(".,;")
    )
    return tail if _balanced(tail) and re.search(r"\d|\\pi|\\infty", tail) else ""


def _operates(token: str) -> bool:
    return bool(_OPERATOR.fullmatch(token.strip("$()")))


def _balanced(text: str) -> bool:
    return all(text.count(first) == text.count(second) for first, second in ("()", "[]", "{}"))

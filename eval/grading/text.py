"""Cleaning of answers before they are read: notation to one spelling, never to another meaning."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from eval.grading.units import is_noun_phrase

MAX_NESTING = 40  # of brackets

# A character and what it stands for, in turn.
_UNICODE = r"""
− - – - — - ‐ - ﹣ - × \times ✕ \times · \cdot ⋅ \cdot ∙ \cdot ÷ / ∕ / ⁄ / ≤ \le ⩽ \le ≥ \ge ⩾ \ge ≠ \neq ≈ \approx
∞ \infty π \pi √ \sqrt ∪ \cup ∩ \cap ∈ \in ± \pm ∓ \mp ° ^\circ ∅ \emptyset ℝ \Reals ℤ \Integers ≡ \equiv ∖ \setminus
′ ' ’ ' “ " ” " … \ldots θ \theta α \alpha β \beta λ \lambda ω \omega φ \phi ∠ \angle ⟨ \langle ⟩ \rangle ⌊ \lfloor
⌋ \rfloor ⌈ \lceil ⌉ \rceil ½ \frac{1}{2} ⅓ \frac{1}{3} ¼ \frac{1}{4} ¾ \frac{3}{4} ⅔ \frac{2}{3} ， , 、 , 。 .
₀ _0 ₁ _1 ₂ _2 ¢ \text{cents} ₃ _3 ₄ _4 ₅ _5 ₆ _6 ₇ _7 ₈ _8 ₉ _9 ⁰ ^0 ¹ ^1 ² ^2 ³ ^3 ⁴ ^4 ⁵ ^5 ⁶ ^6 ⁷ ^7 ⁸ ^8 ⁹ ^9
"""
_TRANSLATION = str.maketrans(
    {one: other + " " * other[-1].isalpha() for one, other in re.findall(r"(\S) (\S+)", _UNICODE)}
)

# A JSON string with single backslashes turns \frac into a form feed and "rac": the letter is put back.
_ESCAPES = {"\t": "t", "\f": "f", "\b": "b", "\r": "r", "\a": "a", "\v": "v"}
_ESCAPED = re.compile(r"([\t\f\b\r\a\v])(?=[a-z]{2})")

# One spelling for each notation, applied in this order.
_RULES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\(?:text)?color\s*\{[^{}]*\}|\\underline(?![a-zA-Z])|\^\{\s*\}|(?<=\d)\s*\\\$$", " "),
    (
        r"^(-?[\d.,/]+)\s*(?:\\text\{\s*)?\(([a-zA-Z ]{3,})\)\}?$",
        lambda match: match[1] if _remark(match[2]) else match[0],
    ),
    (r"[ ,]{0,3}(?:\\text\{ ?)?\(? ?(?:\\text\{ ?)?\b(?:since|because)\b.*$", ""),
    (r"\+\s*/\s*-|(?<![\d)\w])\+-(?=\d)", r" \\pm "),
    (r"\{?([^{}()]{0,40}?)\\choose ?([^{}()]{0,40})\}?", r"\\binom{\1}{\2}"),
    (r"^(\d+) choose (\d+)$", r"\\binom{\1}{\2}"),
    (r"或者?|以及|和", " or "),
    (r"\b(?:np\.\w+|Decimal|Integer|Float)\(\s*['\"]?([-\d.e]+)['\"]?\s*\)", r"\1"),
    (r"\bInterval\(([^()]*)\)", r"[\1]"),
    (r"\bInterval\.open\(([^()]*)\)", r"(\1)"),
    (r"\bInterval\.Lopen\(([^()]*)\)", r"(\1]"),
    (r"\bInterval\.Ropen\(([^()]*)\)", r"[\1)"),
    (r"\bFiniteSet\(([^()]*)\)", r"\\{\1\\}"),
    (r"^Union\((.*)\)$", lambda match: re.sub(r"(?<=[)\]}])\s*,\s*(?=[(\[\\])", r" \\cup ", match[1])),
    (r"\(([^()<=&|]+)(<=?) (\w+)\) & \(\3 (<=?)([^()<=&|]+)\)", r"\1\2 \3 \4\5"),
    (r"^\(?([^()&|<]{1,80}<[^()&|]{1,80})\)? \| \(?([^()&|<]{1,80}<[^()&|]{1,80})\)?$", r"\1 or \2"),
    (r"^\[?\{?([a-z]\w*: [^{}:]+(?:, [a-z]\w*: [^{}:]+)*)\}?\]?$", lambda match: match[1].replace(": ", " = ")),
    (r"^(?:\\text\{)?D\.?N\.?E\.?\}?$", "does not exist"),
    (r"\bE\*\*", "e**"),
    (r"^Eq\(([^,]*),([^,]*)\)$", r"\1=\2"),
    (r"(?<=\d) out of (?=\d)", "/"),
    (r"\b((?:hours?|minutes?|feet|foot|yards?|pounds?)\}?) (?=\d)", r"\1 and "),
    (
        r"\\(?:displaystyle|textstyle|limits|left|right|bigl?|bigr?|Bigl?|Bigr?|biggl?|biggr?|qquad|quad|hfill)(?![a-zA-Z])\.?",
        " ",
    ),
    (r"\\(?:leqslant|leq|le)(?![a-zA-Z])|<=|=<", r" \\le "),
    (r"\\(?:geqslant|geq|ge)(?![a-zA-Z])|>=", r" \\ge "),
    (r"\\(?:neq|ne)(?![a-zA-Z])|!=|\\not\s*=", r" \\neq "),
    (r"(?<![\\a-zA-Z])(?:infinity|inf)(?![a-zA-Z])", r"\\infty "),
    (r"\\lt(?![a-zA-Z])|&lt;", "<"),
    (r"\\gt(?![a-zA-Z])|&gt;", ">"),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
    (r"(?<=\d)(?:\s*\{\s*,\s*\}\s*|,\s*\\!\s*|\\,|\\ |\\;|,\\,)(?=\d{3}(?!\d))", ""),
    (r"\\!", ""),
    (r"(?<!\\)\\[,;:> ]|(?<!\\)~", " "),
    (r"\b(?:Immutable)?(?:Dense)?(?:Matrix|array)\s*\(\s*(\[.*\])\s*\)", r"\1"),
    (r"\\(?:cdot|times|ast)(?![a-zA-Z])", " * "),
    (r"\\div(?![a-zA-Z])", " / "),
    (r"\*\*", "^"),
    (r"\\(?:lvert|rvert|vert|mid)(?![a-zA-Z])", "|"),
    (r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"),
    (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
    (r"\\colon(?![a-zA-Z])", ":"),
    (r"\\(?:degree|degrees)(?![a-zA-Z])", r"^\\circ "),
    (r"\\(?:varnothing|O)(?![a-zA-Z])", r"\\emptyset "),
    (r"\\(?:mathbb|mathbf)\s*\{?([RZNQC])\}?|\\(R|Z|N)(?![a-zA-Z])", r" \\set\1\2 "),
    (r"\\Reals(?![a-zA-Z])", r"\\setR "),
    (r"\\Integers(?![a-zA-Z])", r"\\setZ "),
    (r"\\(?:dots|cdots|dotsc|dotsb)(?![a-zA-Z])|\.\.\.", r"\\ldots "),
    (r"\\(?:backslash)(?![a-zA-Z])", r"\\setminus"),
    (r"\\(?:mathbf|boldsymbol|bm|vec|hat|hat\s*\{?\s*\\mathbf)\s*\{\s*\\?([ijk])(?:math)?\s*\}+", r" \\vec\1 "),
    (
        r"\\(?:mathrm|mathbf|mathit|mathsf|mathcal|operatorname\*?|boldsymbol|bm|vec|hat|mathop|rm|bf)\s*\{\s*([a-zA-Z])\s*\}",
        r" \1 ",
    ),
    (r"\\(?:text[a-z]*|mbox|hbox|fbox|mathrm|mathbf|mathit|mathsf|emph|operatorname|bold)\s*\{", r"\\text{"),
    (r"\(?\\?[pb]?mod\s*\{?\s*(\d+)\s*[})]?\)?", r" \\text{mod \1}"),
    (r"(?i)^(?:\\text\s*\{\s*)?(?:the )?(?:final )?answer(?: is\b|:)\s*:?(?:\s*\})?", ""),
    (r"\\text\{\s*(sin|cos|tan|cot|sec|csc|ln|log|arctan|arcsin|arccos|cis)\s*\}", r" \1 "),
    (r"(?<=[)\]])\s*[Uu]\s*(?=[(\[])", r" \\cup "),
    (r"\\text\{[\s,]*(and|or|to)[\s,]*\}", r" \1 "),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_DOUBLED = re.compile(
    r"\\\\(?=(?:[dtc]?frac|sqrt|pi|text|left|right|begin|end|infty|cdot|times|boxed|[a-z]{3,})(?![a-z]))"
)


def _remark(text: str) -> bool:
    """Whether words in brackets behind a number leave it as it is."""
    return text.casefold() in ("approximately", "approx", "rounded") or is_noun_phrase(text)


_SEPARATOR = re.compile(r"\\\\(?![a-zA-Z])|\\q?quad(?![a-zA-Z])|\n+")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|leq|geq|lt|gt|neq|ne|in)(?![a-zA-Z])")


def _separated(text: str) -> str:
    """Relations that only a line break or a wide space separates, with commas between them."""
    if "\\begin" in text:
        return text
    parts = [part for part in _SEPARATOR.split(text) if part.strip()]
    return ", ".join(parts) if sum(_RELATION.search(part) is not None for part in parts) > 1 else text


def nested(text: str) -> bool:
    """Whether brackets stand in brackets deeper than MAX_NESTING: such texts are not read."""
    depth = 0
    for bracket in re.findall(r"[(\[{}\])]", text):
        depth += 1 if bracket in "([{" else -1
        if depth > MAX_NESTING:
            return True
    return False


def clean(text: str) -> str:
    """One spelling of an answer: Unicode, spacing, wrappers and synonyms of LaTeX commands."""
    text = _ESCAPED.sub(lambda match: "\\" + _ESCAPES[match[1]], text).translate(_TRANSLATION)
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"(?<=\d)[ \t]*\n\s*(?=\d)", r" \\newline ", text)  # numbers in two lines are two numbers
    text = re.sub(r"[\x00-\x1f\x7f\u200b-\u200f\ufeff]", " ", text)
    if r"\begin" not in text or r"\\begin" in text:
        text = _DOUBLED.sub(r"\\", text)
    text = re.sub(r"\\begin\{cases\}(.*?)\\end\{cases\}", lambda m: m[1].replace(r"\\", ", "), text, flags=re.DOTALL)
    text = _separated(text)
    if "matrix}" in text and r"\\" not in text:
        text = re.sub(r"\\(?=[-\s\d])", r"\\\\ ", text)  # a row separator that lost one of its two backslashes
    if _EMPTY.fullmatch(text):
        return r"\emptyset"
    text = unwrap(text)
    if len(_DOLLAR.findall(text)) % 2 == 0:  # an odd one is money, or was left over at the end
        text = _DOLLAR.sub(" ", text)
    text = re.sub(r"(?<=[\d}])(?:\$|\")$", "", text)
    text = re.sub(r"\s+", " ", text)
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return re.sub(r"\s+", " ", unwrap(text)).strip()


_EMPTY = re.compile(r"[\s$]*(?:\\?\{\s*\\?\}|set\(\)|EmptySet(?:\(\))?|\[\s*\])[\s$]*")
_DOLLAR = re.compile(r"(?<!\\)\$")
_WRAPPERS = [
    re.compile(r"\$\$(?P<inner>[^$]*)\$\$|\$(?P<single>[^$]*)\$", re.DOTALL),
    re.compile(r"\\\((?P<inner>.*)\\\)|\\\[(?P<single>.*)\\\]", re.DOTALL),
    re.compile(r"\*\*(?P<inner>[^*]+)\*\*|`(?P<single>[^`]+)`", re.DOTALL),
]
_BRACED = re.compile(r"(?:\\boxed|\\fbox|\\text[a-z]*|\\mbox|\\mathrm|\\mathbf|\\displaystyle)?\s*\{")


def unwrap(text: str) -> str:
    """Without the delimiters, boxes and braces around the whole of it, and without a full stop at the end."""
    while True:
        before = text
        text = re.sub(r"(?<!\\)\\$", "", text.strip()).strip()
        if not text.endswith("\\ldots") and not text.endswith(".."):
            stripped = text.rstrip(" .,;:")
            text = text[: len(stripped) + 1] if stripped.endswith("\\") else stripped
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text = match["inner"] or match["single"] or ""
        opening = _BRACED.match(text)
        if opening and closing_brace(text, opening.end()) == len(text) - 1:
            text = text[opening.end() : -1]
        if text == before:
            return text


def closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes a group whose contents begin at `start`; -1 when it stays open."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return -1


def closing_braces(text: str) -> dict[int, int]:
    """Index of every opening brace that is closed → index of the brace that closes it."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            found[opened.pop()] = match.start()
    return found


def words(text: str) -> str:
    """A text answer for comparison: case, punctuation, articles and LaTeX text commands do not count."""
    text = re.sub(r"\\text|[{}$\\\"*.!?]", " ", text).casefold()
    text = re.sub(r"[\s,;]+", " ", text).strip()
    return re.sub(r"^(?:the|an?) (?=\w)", "", text)

"""The text of an answer read into what it says.

Readers are tried in a fixed order, from the narrowest form to the widest; each returns None for what is not its own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import product

import sympy
from sympy import Rational, Symbol

from eval.grading.answers import (
    Answer,
    Clock,
    Equation,
    Family,
    Inequality,
    Items,
    Named,
    Ratio,
    Region,
    Scalar,
    Unread,
    Words,
)
from eval.grading.identity import equal_values
from eval.grading.latex import FUNCTIONS, Unreadable, Value, matrix_cells, parse_expression
from eval.grading.numbers import read_number
from eval.grading.splitting import balanced, split_commas, split_top
from eval.grading.text import clean, nested, unwrap, words
from eval.grading.units import (
    NUMBER_WORDS,
    SCALES,
    SYMBOL_UNITS,
    is_noun_phrase,
    is_unit,
    number_in_words,
    says_more,
    unit_name,
)


@lru_cache(maxsize=256)
def read(text: str) -> Answer:
    """The answer that a text gives. Never raises; what cannot be read comes back as Words or Unread."""
    return Unread(text) if nested(text) else _read(clean(text))


def _read(text: str) -> Answer:
    text = unwrap(text)
    for reader in _READERS:
        answer = reader(text)
        if answer is not None:
            return answer
    if re.fullmatch(r"[a-zA-Z]{2,3}", text):
        return Scalar(parse_expression(" ".join(text)), text=text)  # a product or a short word: `same` settles which
    natural = re.search(
        r"[^\W\d_]{4,}|[^\W\d_]{2,}[ -][^\W\d_]{2,}", re.sub(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+", " ", text)
    )
    letters = re.fullmatch(r"[^\W\d_]+", text)
    return Words(words(text)) if natural or letters or r"\text" in text else Unread(re.sub(r"\s", "", text))


# --- readers ---------------------------------------------------------------------------------------------------


def _literal(text: str) -> Answer | None:
    number = read_number(text)
    if number is None:
        return None
    return Scalar(Rational(number.value.numerator, number.value.denominator), number, text=text)


_CHOICE = re.compile(
    r"(?P<prefix>(?:the )?(?:correct |right )?(?:option|choice|alternative)\s+(?:is )?)?"
    r"(?P<open>(?:\\text\{\s*)?\(|\\text\{)?\s*(?P<letter>[A-H])\s*(?P<close>[).:\s}]*)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)


def _choice(text: str) -> Answer | None:
    """The letter of a choice, marked as one or before the text of the option; not where that text says more."""
    match = _CHOICE.fullmatch(text)
    if match is None or not match["letter"].isupper():
        return None
    closed = re.search(r"[).:]", match["close"])
    rest = match["rest"].strip()
    if not (match["prefix"] or match["open"] or closed) or (rest and not closed):
        return None
    if any(says_more(word) for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", rest)):
        return None
    if re.search(r"(?<![a-zA-Z\\])[A-H](?![a-zA-Z(])", rest):
        return None
    return Scalar(Symbol(match["letter"]), text=match["letter"])


def _repeating(text: str) -> Answer | None:
    """0.1\\overline{6} and 0.333... as the fractions they are."""
    match = re.fullmatch(
        r"([-+]?)(\d*)\.(\d*?)\s*(?:\\(?:overline|bar|dot)\s*\{?\s*(\d+)\s*\}?|(\d+?)\5+\s*\\ldots)", text
    )
    if match is None:
        return None
    period = match[4] or match[5]
    value = Rational(int(match[3] or 0)) + Rational(int(period), 10 ** len(period) - 1)
    value = int(match[2] or 0) + value / 10 ** len(match[3])
    return Scalar(-value if match[1] == "-" else value, text=text)


def _clock(text: str) -> Answer | None:
    match = re.fullmatch(
        r"(\d{1,2})(?::([0-5]\d))?(?::([0-5]\d))?\s*(?:\\text\{)?\s*(?:([apAP])\.?\s?[mM]\.?)?\s*\}?", text
    )
    if match is None or not (match[2] or match[4]) or int(match[1]) > 24:
        return None
    return Clock(int(match[1]), 60 * int(match[2] or 0) + int(match[3] or 0), (match[4] or "").lower())


_INTEGER_PARAMETER = re.compile(
    r"(?P<body>.+?)[,;]?\s*(?:\\text\{)?\s*(?:\(|where|for|with)?(?:\s*(?:all|any|some|every))?\s*\}?\s*"
    r"(?:(?P<a>[a-z])\s*\\in\s*\\setZ|(?:an )?integers? (?P<b>[a-z])"
    r"|(?P<c>[a-z])\s*(?:\\text\{)?\s*(?:is )?(?:an )?integer)\s*[})]*"
)


def _family(text: str) -> Answer | None:
    match = _INTEGER_PARAMETER.fullmatch(text)
    if match is None:
        return None
    body = _read(match["body"])
    parts = body.parts if isinstance(body, Items) and not body.brackets else (body,)
    return Family(parts, match["a"] or match["b"] or match["c"])


_JOINT = (
    r"\s(?:and|or)\s|;|\\text\{\s*(?:and|or)\s*\}|\\(?:land|lor|wedge|vee)(?![a-zA-Z])"
    r"|(?<=[)\]}\d])\s*(?:and|or)\s*(?=[a-zA-Z]\s*[(=]|[(\[\\\d-])"
)


def _list(text: str) -> Answer | None:
    parts, joints = split_top(text, _JOINT)
    if not joints:
        parts = split_commas(text)
        if len(parts) < 2:
            return None
    read_parts = [_read(part.strip(", ")) for part in parts if part.strip(", ")]
    if all(isinstance(part, Inequality) for part in read_parts):
        return Region("\\cup" if any("or" in joint for joint in joints) else "\\cap", tuple(read_parts))
    if len(joints) == len(read_parts) - 1 and (rows := _rows_of_names(read_parts)):
        return Items("", rows)
    flat = [inner for part in read_parts for inner in _bare_parts(part)]
    names = {part.name for part in flat if isinstance(part, Named)}
    if len(names) == 1 and isinstance(flat[0], Named) and all(isinstance(part, Named | Scalar) for part in flat):
        values = [part.value if isinstance(part, Named) else part for part in flat]
        return Named(names.pop(), Items("", tuple(values)))  # n = 2, 3, 4
    return Items("", tuple(flat), text)


def _rows_of_names(parts: list[Answer]) -> tuple[Answer, ...]:
    """p = 5, q = 2; p = 7, q = 2 as (5, 2), (7, 2); () for anything else."""
    rows = [part.parts for part in parts if isinstance(part, Items) and not part.brackets]
    names = [tuple(part.name for part in row if isinstance(part, Named)) for row in rows]
    if len(rows) < len(parts) or len(set(names)) != 1 or not len(rows[0]) == len(set(names[0])) > 1:
        return ()
    named = [sorted((part for part in row if isinstance(part, Named)), key=lambda part: part.name) for row in rows]
    return tuple(Items("()", tuple(part.value for part in row)) for row in named)


def _bare_parts(answer: Answer) -> tuple[Answer, ...]:
    return answer.parts if isinstance(answer, Items) and not answer.brackets else (answer,)


def _membership(text: str) -> Answer | None:
    match = re.fullmatch(r"(\S[^,]*?)\s*\\in(?![a-zA-Z])\s*(.+)", text)
    if match is None or not balanced(match[1]) or any(map(says_more, re.findall(r"[a-z]{2,}", match[1]))):
        return None
    return Named(_name(match[1]) or match[1], _read(match[2]))


_BRACKETS = re.compile(r"(\(|\[|\\\{|\\langle)(.*)(\)|\]|\\\}|\\rangle)", re.DOTALL)
_PLAIN = {"\\{": "{", "\\}": "}", "\\langle": "<", "\\rangle": ">"}


def _bracketed(text: str) -> Answer | None:
    match = _BRACKETS.fullmatch(text)
    if match is None or not balanced(match[2]) or (match[1] in "([") != (match[3] in ")]"):
        return None
    brackets = _PLAIN.get(match[1], match[1]) + _PLAIN.get(match[3], match[3])
    if brackets == "{}" and (condition := re.fullmatch(r"\s*(\S+?)\s*(?:\\in\s*\\setR\s*)?(?:\||:)(.+)", match[2])):
        return Named(condition[1], _read(condition[2]))
    parts = [part for part in split_top(match[2], ",|;")[0] if part]
    if len(parts) == 1 and brackets in ("[)", "(]"):
        return Unread(text)
    if len(parts) == 1 and brackets != "<>":
        return _read(parts[0])
    return Items(brackets, tuple(_read(part) for part in parts))


_REALS = {"\\setR", "all real numbers", "all reals", "real numbers", "all real number", "\\text{all real numbers}"}
_NOTHING = {"\\emptyset", "no solution", "no solutions", "no real solutions", "no real solution"}


def _region(text: str) -> Answer | None:
    plain = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    if text in _REALS or plain in _REALS:
        return Region("\\setR", ())
    if plain.casefold() in _NOTHING:
        return Items("{}", ())
    for operator in (r"\\setminus|(?<=\\setR)\s*-\s*(?=\\\{)", r"\\cup", r"\\cap"):
        parts, found = split_top(text, f"(?:{operator})(?![a-zA-Z])")
        if found:
            name = operator.replace("\\\\", "\\").split("|")[0]
            return Region(name, tuple(_read(part) for part in parts))
    return None


_WORD_NAME = (
    r"(?:\\?[a-zA-Z]|\\[a-z]+|[A-Z]{2,4}|[A-Za-z][a-z ]{3,}|\\text\{[^{}]*\})(?:_\{?\w+\}?)?'*(?:\^\{-1\})?"
    r"\s*(?:\(\s*[a-zA-Z](?:\s*,\s*[a-z])*\s*\))?"
)
_SEGMENT = r"[A-Z]{1,3}(?:_\{?\w+\}?)?"
_NAME = re.compile(
    rf"{_WORD_NAME}|\\frac\{{d\w\}}\{{d\w\}}|\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)|\|[A-Z]{{2}}\|"
    r"|m?\\(?:overline|bar|angle|triangle|widehat|overrightarrow)\s*\{?\s*[a-zA-Z]+\s*\}?"
    rf"|\\frac\s*\{{\s*{_SEGMENT}\s*\}}\s*\{{\s*{_SEGMENT}\s*\}}|{_SEGMENT}\s*/\s*{_SEGMENT}"
    rf"|{_SEGMENT}(?:\s*:\s*{_SEGMENT})+|\w(?:_\w)?(?:\s*:\s*\w(?:_\w)?)+"
)
# A function at a number (f(1), a_n at 3) and a probability or an expectation of anything.
_EVALUATED = re.compile(r"[a-zA-Z]'*\s*\(\s*-?\d+(?:\.\d+)?\s*\)|(?:P|\\Pr|E|Var|Cov)\s*[(\[].*[)\]]")


def _name(text: str) -> str:
    """The text without spaces when it only names a quantity: a symbol, f(x), f(1), P(X=2), a segment; else ""."""
    text = text.strip()
    if text.lstrip("\\").partition("(")[0].strip() in FUNCTIONS:
        return ""
    if " " in text and any(says_more(word) for word in re.findall(r"[a-z]{2,}", text)):
        return ""
    named = _NAME.fullmatch(text) or (_EVALUATED.fullmatch(text) and balanced(text[text.find("(") + 1 : -1]))
    return re.sub(r"[\s{}]", "", text) if named else ""


def _relation(text: str) -> Answer | None:
    sides, operators = split_top(text, r"\\(?:le|ge|neq|approx|equiv|sim)(?![a-zA-Z])|[<>=]")
    if not operators:
        return None
    if not sides[0] and len(sides) == 2 and operators[0] in ("=", "\\approx"):
        return _read(sides[1])
    try:
        if set(operators) <= {"<", ">", "\\le", "\\ge", "\\neq"}:
            return Inequality(tuple(parse_expression(side) for side in sides), tuple(operators))
        return _equality(sides, operators)
    except Unreadable:
        return None


def _equality(sides: list[str], operators: list[str]) -> Answer | None:
    """`=` and its approximate relatives; a chain gives its name and its last exact side."""
    if not set(operators) <= {"=", "\\approx", "\\equiv", "\\sim"}:
        return None
    if len(operators) > 1 and (parts := _without_commas(sides)):
        return _read(", ".join(parts))
    exact = 1 + next((i for i, operator in enumerate(operators) if operator == "\\approx"), len(operators))
    name = _name(sides[0])
    if not name and len(sides) == 2 and _name(sides[1]) and operators == ["="]:
        return Named(_name(sides[1]), _read(sides[0]))
    if name:
        return Named(name, _read(sides[max(exact - 1, 1)]))
    values = [parse_expression(side) for side in sides[:exact]]
    constant = len(values) > 2 or getattr(values[0], "is_number", False)
    if constant and all(equal_values(values[0], value) for value in values[1:]):
        return _read(sides[exact - 1])  # 3 + 4 = 7
    return Equation(*values) if len(values) == 2 else None


def _without_commas(sides: list[str]) -> list[str]:
    """The equations of a text such as "x = 1 y = 2"; [] for a chain."""
    parts = [sides[0]]
    for side in sides[1:-1]:
        match = re.fullmatch(r"(?P<value>.*[\w})])\s+(?P<name>[a-zA-Z](?:_\w|_\{\w+\})?)", side)
        if match is None:
            return []
        parts[-1] += f" = {match['value']}"
        parts.append(match["name"])
    parts[-1] += f" = {sides[-1]}"
    return parts


def _ratio(text: str) -> Answer | None:
    parts, _ = split_top(text, r":|(?<=\d) to (?=\d)")
    if len(parts) < 2:
        return None
    try:
        return Ratio(tuple(parse_expression(part) for part in parts))
    except Unreadable:
        return None


def _plus_minus(text: str) -> Answer | None:
    """`a \\pm b` as the list of its values; with \\mp the signs go together."""
    pieces = re.split(r"\\([pm][mp])(?![a-zA-Z])", text)
    signs = pieces[1::2]
    if not signs or len(signs) > 4:
        return None
    together = [("+", "-")] * (1 if "mp" in signs else len(signs))
    parts = []
    for choice in product(*together):
        plus = choice * len(signs) if "mp" in signs else choice
        chosen = [sign if kind == "pm" else "+-"[sign == "+"] for sign, kind in zip(plus, signs, strict=False)]
        parts.append(_read("".join(part + sign for part, sign in zip(pieces[::2], [*chosen, ""], strict=True))))
    return Items("", tuple(parts))


_BASED = re.compile(
    r"(-?)\s*(?:\\text\{)?\s*([0-9A-Fa-f ]+)(?:\.([0-9A-Fa-f]+))?\}?\s*_\s*"
    r"\{?\s*(?:\\text\{)?\s*\(?(\d+|[a-z]+)\)?\s*\}*"
)


def _based(text: str) -> Answer | None:
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    sign, whole, part, name = match.groups(default="")
    base = NUMBER_WORDS.get(name) or (int(name) if name.isdigit() and len(name) < 3 else 0)
    digits = whole.replace(" ", "").lower()
    if not 2 <= base <= 36 or not digits or (digits[0].isalpha() and base < 16):
        return None
    try:
        value = Rational(int(digits + part, base), base ** len(part))
    except ValueError:
        return Words(text)  # digits that the base does not have
    written = sign + digits + ("." + part if part else "")
    return Scalar(-value if sign else value, mark=f"base {base}", text=written)


_MONEY = re.compile(r"(?P<sign>-?)\s*(?:\\?\$|USD|(?P<symbol>[€£¥]))\s*(?P<sum>-?[\d.].*)")
_PERCENT = re.compile(
    r"(?P<n>.+?)\s*(?:\\?%|\\text\{\s*(?:\\?%|percent|pct)\s*\}|percent(?:age)?|pct|per cent)(?:\s+points?)?"
)
_DEGREES = re.compile(
    r"(?P<n>(?:(?!circ|sin|cos|tan).)+?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\text\{\s*degrees?\s*\}|degrees?)\s*(?:\\text\{)?\s*(?P<scale>[CF]?)\s*\}?"
)
_ARC = re.compile(
    r"(?P<degrees>\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?\s*(?P<minutes>\d+(?:\.\d+)?)\s*(?:'|\^?\s*\{?\s*\\prime\s*\}?)"
    r"(?:\s*(?P<seconds>\d+(?:\.\d+)?)\s*(?:''|\"|\^?\s*\{?\s*\\prime\s*\\prime\s*\}?))?"
)
_POWER = r"(?:\^\s*\{?\s*-?\d\s*\}?)?"
_TEXT = r"\\text\{(?:[^{}]|\{[^{}]*\})*\}"
_TEXT_UNIT = re.compile(rf"(?P<n>.*?[^\s\\])\s*(?P<unit>(?:{_TEXT}\s*{_POWER}\s*/?\s*)+(?:[a-zA-Z]+)?)")
_WORD_UNIT = re.compile(
    rf"(?P<n>.*?[\d)}}])\s*(?P<unit>[a-zA-Z]+\.?{_POWER}(?:[ /*-]+[a-zA-Z]+{_POWER})*\s*)(?:\s*\\text\{{.*\}})?"
)
_ORDINAL = re.compile(r"(?P<n>\d+)\s*\^?\s*\{?\s*(?:\\text\{)?\s*(?:st|nd|rd|th)\s*\}*")
_LETTER_UNIT = re.compile(rf"(?P<n>-?[\d.,]+) (?P<unit>[{SYMBOL_UNITS}](?:\s*\^\s*\{{?\d\}}?)?)")
_SIGN_UNIT = re.compile(r"(?P<n>-?[\d.,]+)\s*(?P<unit>\\Omega|Ω|€|£|¥|\\?\$)")
_CHANGES = {"squared": lambda value: value**2, "cubed": lambda value: value**3, "factorial": sympy.factorial}
_OR_MORE = re.compile(
    r"(?P<n>.+?)\s*(?:\\text\{)?\s*(?:or|and)\s+(?:(?P<up>more|greater|higher|above|over|larger|up|later)"
    r"|(?:less|fewer|lower|below|under|smaller|earlier))\b\s*\}?"
)


def _bound(text: str) -> Answer | None:
    """ "5 or more", "10 or fewer": a condition, not the number."""
    match = _OR_MORE.fullmatch(text)
    value = _scalar(match["n"]) if match else None
    if match is None or not isinstance(value, Scalar) or not getattr(value.value, "is_number", False):
        return None
    return Inequality((Symbol("x"), value.value), ("\\ge" if match["up"] else "\\le",))


def _scalar(text: str) -> Answer | None:
    """A value with what may stand around it: a currency, a percent or degree sign, a scale word, a unit."""
    if (spelled := number_in_words(text)) is not None:
        return _literal(str(spelled))
    if match := _ARC.fullmatch(text):
        parts = [Rational(match[name] or 0) for name in ("degrees", "minutes", "seconds")]
        return Scalar(parts[0] + parts[1] / 60 + parts[2] / 3600, mark="deg", text="." * ("." in text))
    if match := _MONEY.fullmatch(text):
        return _with_unit(match["sign"] + match["sum"], unit_name(match["symbol"] or "$"))
    for pattern, mark in ((_PERCENT, "%"), (_DEGREES, "deg")):
        if (match := pattern.fullmatch(text)) and isinstance(inner := _value(match["n"]), Scalar) and not inner.mark:
            value = inner.value / 100 if mark == "%" else inner.value
            unit = inner.unit or (match["scale"] if mark == "deg" else "")
            return replace(inner, value=value, mark=mark, unit=unit)
    for pattern in (_ORDINAL, _SIGN_UNIT, _TEXT_UNIT, _WORD_UNIT, _LETTER_UNIT):
        if (match := pattern.fullmatch(text)) and (answer := _with_suffix(match)):
            return answer
    return _value(text)


def _with_suffix(match: re.Match[str]) -> Answer | None:
    """A value with the words behind it: a scale, a power, a unit; None where the words say something else."""
    unit = match.groupdict().get("unit") or ""
    word, _, rest = re.sub(r"\\text|[{}]", " ", unit).strip().casefold().partition(" ")
    if word in _CHANGES and not rest and isinstance(inner := _value(match["n"]), Scalar) and not inner.mark:
        return Scalar(_CHANGES[word](inner.value), text=inner.text)
    if word in SCALES and (not rest or is_unit(rest) or is_noun_phrase(rest)):
        inner = _with_unit(match["n"], unit_name(rest) if rest else "")
        if not isinstance(inner, Scalar):
            return None
        number = inner.number and replace(inner.number, value=inner.number.value * SCALES[word], decimals=None)
        return replace(inner, value=inner.value * SCALES[word], number=number)
    if unit and not is_unit(unit):
        plain = read_number(match["n"]) is not None and len(word + rest) > 2 and not unit.strip().istitle()
        if not is_noun_phrase(unit) or not (plain or r"\text" in unit):
            return None
    if re.fullmatch(r"[a-zA-Z]", word) and r"\text" not in unit and not re.fullmatch(r"-?[\d., ]+", match["n"]):
        return None  # a variable behind a fraction or another expression
    return _with_unit(match["n"], unit_name(unit))


def _with_unit(text: str, unit: str) -> Answer | None:
    inner = _literal(text.strip()) or _scalar(text.strip())
    return replace(inner, unit=unit) if isinstance(inner, Scalar) and not inner.unit else None


_APPLIED = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]\s*\(\s*(?:[2-9]|\d\d+|[a-zA-Z])\s*\)")


def _value(text: str) -> Answer | None:
    if literal := _literal(text):
        return literal
    if re.fullmatch(r"[a-zA-Z]{2,}", text) and text not in ("pi", "oo"):
        return None  # a word, not a product of its letters
    try:
        if "j" in text and not re.search(r"[a-zA-Z\\]", text.replace("j", "")):
            text = text.replace("j", "i")  # a printed complex number
        value = parse_expression(text)
        product = parse_expression(text, applied=False) if _APPLIED.search(text) else None
        cells = tuple(_read(cell) for cell in matrix_cells(text))
    except Unreadable:
        return None
    return _unit_vector(value) or Scalar(value, text=text, product=product, cells=cells)


_DIRECTIONS = [Symbol(name) for name in ("veci", "vecj", "veck")]


def _unit_vector(value: Value) -> Answer | None:
    """3i + 4j as the list of its components; i alone is the imaginary unit."""
    symbols: set[Symbol] = getattr(value, "free_symbols", set())
    if Symbol("j") in symbols and value.has(sympy.I):
        value = value.subs({sympy.I: _DIRECTIONS[0], Symbol("j"): _DIRECTIONS[1], Symbol("k"): _DIRECTIONS[2]})
        symbols = value.free_symbols
    if not symbols & set(_DIRECTIONS):
        return None
    value = sympy.expand(value)
    parts = [value.coeff(one) for one in _DIRECTIONS]
    if sympy.expand(value - sum(part * one for part, one in zip(parts, _DIRECTIONS, strict=True))) != 0:
        return None
    length = 3 if _DIRECTIONS[2] in symbols else 2
    return Items("<>", tuple(Scalar(part, text=str(part)) for part in parts[:length]))


_READERS = [
    *(_literal, _choice, _repeating, _clock, _family, _list, _membership, _region, _bracketed),
    *(_relation, _plus_minus, _ratio, _based, _bound, _scalar),
]

"""What an answer says: the text of an answer read into a value, a list, a relation, a set, a time or words.

Readers are tried in a fixed order, from the narrowest form to the widest; each returns None for what is not its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate, product

import sympy
from sympy import Rational, Symbol

from eval.grading.latex import Unreadable, Value, parse_expression
from eval.grading.numbers import Number, read_number
from eval.grading.text import SYMBOL_UNITS, clean, is_unit, unit_name, unwrap, words

MAX_NESTING = 40  # of brackets; deeper texts are not read


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Unread:
    """Notation that was not understood; comparable only as text."""

    text: str


@dataclass(frozen=True)
class Scalar:
    """An expression or a matrix; `number` where it is one literal, `mark` one of "", "%", "deg", "base N"."""

    value: Value
    number: Number | None = None
    unit: str = ""
    mark: str = ""
    text: str = ""


@dataclass(frozen=True)
class Items:
    """Several answers; `brackets` as written: "" for a bare list, "()", "[)", "{}", "<>" and so on."""

    brackets: str
    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Named:
    """`name = value`, `f(x) = value`, `name in value`."""

    name: str
    value: Answer


@dataclass(frozen=True)
class Equation:
    left: Value
    right: Value


@dataclass(frozen=True)
class Inequality:
    sides: tuple[Value, ...]
    operators: tuple[str, ...]  # <, >, \le, \ge, \neq; one fewer than sides


@dataclass(frozen=True)
class Region:
    """A combination of sets: `operator` is \\cup, \\cap or \\setminus; a lone number set has no parts."""

    operator: str
    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Ratio:
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Clock:
    hour: int
    seconds: int  # after the hour
    half: str  # "a", "p" or "" when not said


@dataclass(frozen=True)
class Family:
    """One answer for every integer value of a parameter."""

    parts: tuple[Answer, ...]
    parameter: str


Answer = Words | Unread | Scalar | Items | Named | Equation | Inequality | Region | Ratio | Clock | Family


def read(text: str) -> Answer:
    """The answer that a text gives. Never raises; what cannot be read comes back as Words or Unread."""
    depth = list(accumulate((char in "([{") - (char in ")]}") for char in text))
    return _read(clean(text)) if max(depth, default=0) <= MAX_NESTING else Unread(text)


def _read(text: str) -> Answer:
    text = unwrap(text)
    for reader in _READERS:
        answer = reader(text)
        if answer is not None:
            return answer
    if re.fullmatch(r"[a-zA-Z]{2,3}", text):
        return Scalar(parse_expression(" ".join(text)), text=text)  # a product or a short word: `same` settles which
    natural = re.search(
        r"[^\W\d_]{4,}|[^\W\d_]{2,} [^\W\d_]{2,}", re.sub(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+", " ", text)
    )
    letters = re.fullmatch(r"[^\W\d_]+", text)
    return Words(words(text)) if natural or letters or r"\text" in text else Unread(re.sub(r"\s", "", text))


# --- splitting -------------------------------------------------------------------------------------------------

_DEPTH = re.compile(r"\\begin\{\w+\}|\\end\{\w+\}|\\[{}]|\\langle(?![a-zA-Z])|\\rangle(?![a-zA-Z])|\\\\|[({\[\])}]")
_OPEN = {"(", "[", "{", "\\{", "\\langle"}


def split_top(text: str, separator: str) -> tuple[list[str], list[str]]:
    """The parts of a text between separators (a pattern) outside brackets, and the separators themselves."""
    spans, depth = [], 0
    for match in re.compile(f"(?P<separator>{separator})|{_DEPTH.pattern}").finditer(text):
        token = match.group()
        if match["separator"] is not None:
            if depth == 0 and match.end() > match.start():
                spans.append(match.span())
        elif token != "\\\\":
            depth += 1 if token in _OPEN or token.startswith("\\begin") else -1
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    parts = [text[start:end].strip() for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return parts, [text[start:end].strip() for start, end in spans]


_GROUPED = re.compile(r"[^\d,]*\d{1,3}(?:,\d{3})+(?!\d)[^,]*")


def _commas(text: str) -> list[str]:
    if _GROUPED.fullmatch(text):
        return [text]
    grouped = re.search(r",\s", text) and re.search(r"(?<=\d),\d{3}(?!\d)", text)
    parts, _ = split_top(text, r",(?=\s)" if grouped else r",")
    return [part for part in parts if part]


def balanced(text: str) -> bool:
    """Whether every bracket that opens is closed, in whatever style (half-open intervals mix two)."""
    depth = 0
    for match in _DEPTH.finditer(text):
        token = match.group()
        depth += 0 if token == "\\\\" else 1 if token in _OPEN or token.startswith("\\begin") else -1
        if depth < 0:
            return False
    return depth == 0


# --- readers ---------------------------------------------------------------------------------------------------


def _literal(text: str) -> Answer | None:
    number = read_number(text)
    if number is None:
        return None
    return Scalar(Rational(number.value.numerator, number.value.denominator), number, text=text)


def _choice(text: str) -> Answer | None:
    match = re.fullmatch(r"(?:\\text\{\s*)?\(?([A-H])[).:]\s*\}?(?:\s.*)?", text)
    return Scalar(Symbol(match[1]), text=match[1]) if match else None


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


def _list(text: str) -> Answer | None:
    parts, joints = split_top(text, r"\s(?:and|or)\s|;|\\text\{\s*(?:and|or)\s*\}|\\(?:land|lor|wedge|vee)(?![a-zA-Z])")
    if not joints:
        parts = _commas(text)
        if len(parts) < 2:
            return None
    read_parts = [_read(part.strip(", ")) for part in parts if part.strip(", ")]
    if all(isinstance(part, Inequality) for part in read_parts):
        return Region("\\cup" if any("or" in joint for joint in joints) else "\\cap", tuple(read_parts))
    flat = [inner for part in read_parts for inner in _bare_parts(part)]
    names = {part.name for part in flat if isinstance(part, Named)}
    if len(names) == 1 and isinstance(flat[0], Named) and all(isinstance(part, Named | Scalar) for part in flat):
        values = [part.value if isinstance(part, Named) else part for part in flat]
        return Named(names.pop(), Items("", tuple(values)))  # n = 2, 3, 4
    return Items("", tuple(flat))


def _bare_parts(answer: Answer) -> tuple[Answer, ...]:
    return answer.parts if isinstance(answer, Items) and not answer.brackets else (answer,)


def _membership(text: str) -> Answer | None:
    match = re.fullmatch(r"(\S[^,]*?)\s*\\in(?![a-zA-Z])\s*(.+)", text)
    return Named(_name(match[1]) or match[1], _read(match[2])) if match else None


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


_NAME = re.compile(
    r"(?:\\?[a-zA-Z]|\\[a-z]+|[A-Z]{2,4}|[A-Za-z][a-z ]{3,}|\\text\{[^{}]*\})(?:_\{?\w+\}?)?'*(?:\^\{-1\})?"
    r"\s*(?:\(\s*[a-zA-Z](?:\s*,\s*[a-z])*\s*\))?|\\frac\{d\w\}\{d\w\}"
    r"|\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)|m?\\(?:overline|angle|triangle)\s*\{?\s*[A-Z]+\s*\}?|\|[A-Z]{2}\|"
)


def _name(text: str) -> str:
    """The text without spaces when it only names a quantity: a symbol, f(x), a segment, a word; else ""."""
    return re.sub(r"[\s{}]", "", text) if _NAME.fullmatch(text.strip()) else ""


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
    exact = 1 + next((i for i, operator in enumerate(operators) if operator == "\\approx"), len(operators))
    name = _name(sides[0])
    if not name and len(sides) == 2 and _name(sides[1]) and operators == ["="]:
        return Named(_name(sides[1]), _read(sides[0]))
    if name:
        return Named(name, _read(sides[max(exact - 1, 1)]))
    values = [parse_expression(side) for side in sides[:exact]]
    if len(set(values)) == 1 and getattr(values[0], "is_number", False):
        return _read(sides[exact - 1])  # 3 + 4 = 7
    return Equation(*values) if len(values) == 2 else None


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


_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: value for value, word in enumerate(_NUMERALS.split())}
_NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)} | {"hundred": 100}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


_BASED = re.compile(
    r"(-?)\s*(?:\\text\{)?\s*([0-9A-Fa-f ]+)(?:\.([0-9A-Fa-f]+))?\}?\s*_\s*"
    r"\{?\s*(?:\\text\{)?\s*\(?(\d+|[a-z]+)\)?\s*\}*"
)


def _based(text: str) -> Answer | None:
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    sign, whole, part, name = match.groups(default="")
    base = _NUMBER_WORDS.get(name) or (int(name) if name.isdigit() and len(name) < 3 else 0)
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
_PERCENT = re.compile(r"(?P<n>.+?)\s*(?:\\?%|\\text\{\s*(?:\\?%|percent)\s*\}|percent)")
_DEGREES = re.compile(
    r"(?P<n>(?:(?!circ|sin|cos|tan).)+?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\text\{\s*degrees?\s*\}|degrees?)\s*(?:\\text\{)?\s*(?P<scale>[CF]?)\s*\}?"
)
_TEXT_UNIT = re.compile(
    r"(?P<n>.*?[^\s\\])\s*(?P<unit>(?:\\text\{[^{}]*\}\s*(?:\^\s*\{?\d\}?)?\s*/?\s*)+(?:[a-zA-Z]+)?)"
)
_WORD_UNIT = re.compile(
    r"(?P<n>.*?[\d)}])\s*(?P<unit>[a-zA-Z]+\.?(?:[ /]+[a-zA-Z]+)*\s*(?:\^\s*\{?\d\}?)?)(?:\s*\\text\{.*\})?"
)
_ORDINAL = re.compile(r"(?P<n>\d+)\s*\^?\s*\{?\s*(?:\\text\{)?\s*(?:st|nd|rd|th)\s*\}*")
_LETTER_UNIT = re.compile(rf"(?P<n>.*[\d)}}]) (?P<unit>[{SYMBOL_UNITS}](?:\s*\^\s*\{{?\d\}}?)?)")


def _scalar(text: str) -> Answer | None:
    """A value with what may stand around it: a currency, a percent or degree sign, a scale word, a unit."""
    tens, hyphen, ones = text.casefold().partition("-")
    if tens in _NUMBER_WORDS and (
        not hyphen or (20 <= _NUMBER_WORDS[tens] < 100 and 0 < _NUMBER_WORDS.get(ones, 0) < 10)
    ):
        return _literal(str(_NUMBER_WORDS[tens] + _NUMBER_WORDS.get(ones, 0)))
    if match := _MONEY.fullmatch(text):
        return _with_unit(match["sign"] + match["sum"], unit_name(match["symbol"] or "$"))
    for pattern, mark in ((_PERCENT, "%"), (_DEGREES, "deg")):
        if (match := pattern.fullmatch(text)) and isinstance(inner := _value(match["n"]), Scalar) and not inner.mark:
            value = inner.value / 100 if mark == "%" else inner.value
            unit = inner.unit or (match["scale"] if mark == "deg" else "")
            return replace(inner, value=value, mark=mark, unit=unit)
    for pattern in (_ORDINAL, _TEXT_UNIT, _WORD_UNIT, _LETTER_UNIT):
        if (match := pattern.fullmatch(text)) and (answer := _with_suffix(match)):
            return answer
    return _value(text)


def _with_suffix(match: re.Match[str]) -> Answer | None:
    unit = match.groupdict().get("unit") or ""
    word, _, rest = re.sub(r"\\text|[{}]", " ", unit).strip().casefold().partition(" ")
    if word in _SCALES:
        inner = _with_unit(match["n"], unit_name(rest) if rest else "")
        if not isinstance(inner, Scalar):
            return None
        number = inner.number and replace(inner.number, value=inner.number.value * _SCALES[word], decimals=None)
        return replace(inner, value=inner.value * _SCALES[word], number=number)
    known = r"\text" in unit or is_unit(unit) or not unit
    if not known and (read_number(match["n"]) is None or len(word + rest) < 3 or unit.strip().istitle()):
        return None
    return _with_unit(match["n"], unit_name(unit))


def _with_unit(text: str, unit: str) -> Answer | None:
    inner = _literal(text.strip()) or _scalar(text.strip())
    return replace(inner, unit=unit) if isinstance(inner, Scalar) and not inner.unit else None


def _value(text: str) -> Answer | None:
    if literal := _literal(text):
        return literal
    if re.fullmatch(r"[a-zA-Z]{2,}", text) and text not in ("pi", "oo"):
        return None  # a word, not a product of its letters
    try:
        if "j" in text and not re.search(r"[a-zA-Z\\]", text.replace("j", "")):
            text = text.replace("j", "i")  # a printed complex number
        return Scalar(parse_expression(text), text=text)
    except Unreadable:
        return None


_READERS = [
    *(_literal, _choice, _repeating, _clock, _family, _list, _membership, _region, _bracketed),
    *(_relation, _plus_minus, _ratio, _based, _scalar),
]


def as_set(answer: Answer) -> sympy.Set | None:
    """The set of real numbers that an interval, an inequality, a union or a finite set describes."""
    if isinstance(answer, Named):
        return as_set(answer.value)
    if isinstance(answer, Scalar) and answer.value in (sympy.oo, -sympy.oo):
        return None
    if isinstance(answer, Items):
        return _items_set(answer)
    if isinstance(answer, Inequality):
        return _solution_set(answer)
    if not isinstance(answer, Region):
        return sympy.FiniteSet(answer.value) if isinstance(answer, Scalar) else None
    if not answer.parts:
        return sympy.S.Reals
    sets = [as_set(part) for part in answer.parts]
    if any(part is None for part in sets):
        return None
    if answer.operator == "\\setminus":
        return sympy.Complement(sets[0], sympy.Union(*sets[1:]))
    return reduce(sympy.Union if answer.operator == "\\cup" else sympy.Intersection, sets)


def _items_set(items: Items) -> sympy.Set | None:
    values = [part.value for part in items.parts if isinstance(part, Scalar)]
    if len(values) != len(items.parts):
        return None
    if items.brackets in ("{}", ""):
        return sympy.FiniteSet(*values)
    if len(values) != 2 or items.brackets == "<>":
        return None
    return sympy.Interval(*values, items.brackets[0] == "(", items.brackets[1] == ")")


def _solution_set(inequality: Inequality) -> sympy.Set | None:
    symbols = set().union(*(side.free_symbols for side in inequality.sides))
    if len(symbols) != 1:
        return None
    old, x = symbols.pop(), Symbol("x", real=True)
    sides = [side.subs(old, x) for side in inequality.sides]
    relations = {"<": sympy.Lt, ">": sympy.Gt, "\\le": sympy.Le, "\\ge": sympy.Ge, "\\neq": sympy.Ne}
    result = sympy.S.Reals
    for left, operator, right in zip(sides, inequality.operators, sides[1:], strict=False):
        if operator == "\\neq":
            part = sympy.Complement(sympy.S.Reals, sympy.solveset(left - right, x, sympy.S.Reals))
        else:
            part = sympy.solve_univariate_inequality(relations[operator](left, right), x, relational=False)
        result = sympy.Intersection(result, part)
    return result

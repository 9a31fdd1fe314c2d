"""Mathematical notation to sympy: LaTeX and the plain syntax that programs print, mixed freely.

Strict on purpose: what is not understood raises `Unreadable`, never a partial parse, and nothing is ever evaluated
as code. Sums, products, limits and integrals go to latex2sympy. Numbers stay exact; powers too large to write down
stay unevaluated. Not covered: derivatives, set-builder forms inside expressions, piecewise definitions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import sympy
from sympy import Expr, I, ImmutableMatrix, Integer, Rational, Symbol

MAX_DEPTH = 40
MAX_BITS = 20_000  # of an integer power that is written out
MAX_POSTFIXES = 4  # one behind the other
MAX_FACTORIAL = 5_000

Value = Any  # sympy.Expr or ImmutableMatrix: both take part in +, -, *, / through Python's operators


class Unreadable(ValueError):
    """The text is not an expression this module understands."""


class Huge(sympy.Function):  # type: ignore[misc]
    """base**exponent that is too large to write down: it cancels against itself and has an approximate value."""

    nargs = 2

    def _eval_evalf(self, prec: int) -> Expr:
        with mpmath.workprec(prec):
            base, exponent = (mpmath.mpf(argument.p) / argument.q for argument in self.args)
            return sympy.Float(mpmath.power(base, exponent), precision=prec)


_SAME_NAME = "sin cos tan cot sec csc sinh cosh tanh exp floor gcd lcm asin acos atan acot asec acsc asinh acosh atanh"
_CIRCULAR = "sin cos tan cot sec csc sinh cosh tanh"
_OTHER_NAME = (
    "ln:log log:log sqrt:sqrt abs:Abs Abs:Abs cbrt:cbrt max:Max min:Min ceil:ceiling ceiling:ceiling tg:tan Re:re Im:im"
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(sympy, name) for name in _SAME_NAME.split()},
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in _CIRCULAR.split()},
    **{name: getattr(sympy, other) for name, other in re.findall(r"(\w+):(\w+)", _OTHER_NAME)},
    "lg": lambda x: sympy.log(x, 10),
    **dict.fromkeys(("Rational", "Fraction"), lambda top, bottom=1: top / bottom),
}
INVERSES = {name: FUNCTIONS[f"arc{name}"] for name in _CIRCULAR.split()}
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar ldots"
)
GREEK = frozenset([*_GREEK.split(), "veci", "vecj", "veck"])
CONSTANTS: dict[str, Any] = {"pi": sympy.pi, "e": sympy.E, "i": I, "I": I, "infty": sympy.oo, "oo": sympy.oo}
BY_LATEX2SYMPY = re.compile(r"\\(?:int|iint|oint|sum|prod|lim)(?![a-zA-Z])")

# Short words of a sentence, which would otherwise be products of their letters.
_ENGLISH = re.compile(
    r"(?<![\\a-zA-Z{])(?:the|is|it|so|we|he|if|or|are|was|and|not|for|has|had|but|get|let|sum|its|his|her|she|they|you|our"
    r"|can|may|yes|all|any|how|who|why|now|one|two|six|ten|this|that|The|Is|It|So|We|He|If|Or|Let|Sum|Yes|No)(?![a-zA-Z])"
)
_TOKEN = re.compile(
    r"\s*(?:(?P<matrix>\\begin\{(?P<env>\w*matrix|array)\}(?:\{[clr| ]*\})?(?P<body>.*?)\\end\{(?P=env)\})"
    r"|(?P<number>\d+\.?\d*|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<word>[a-zA-Z]+)|(?P<symbol>\\[{}%|]|[-+*/^_!%(){}\[\]|,&]))",
    re.DOTALL,
)
_OPENING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "|": "|"}
_STOP = {None, "+", "-", "/", "*", ",", ")", "]", "}", "\\rfloor", "\\rceil", "^", "_", "!"}


def parse_expression(text: str, applied: bool = True) -> Value:
    """A sympy expression or matrix. Raises Unreadable.

    applied: a letter before a bracket that holds one number or one letter, y(0), is a function; else a factor.
    """
    if _ENGLISH.search(text):
        raise Unreadable("words")
    try:
        if BY_LATEX2SYMPY.search(text):
            return _by_latex2sympy(text)
        parser = _Parser(_tokens(text), applied)
        value = parser.sum()
        if parser.peek() is not None:
            raise Unreadable(f"unexpected {parser.peek()!r}")
        return value
    except Unreadable:
        raise
    except (ArithmeticError, TypeError, ValueError, AttributeError, RecursionError, NotImplementedError) as error:
        raise Unreadable(str(error)) from error


def power(base: Value, exponent: Value) -> Value:
    """base**exponent, kept as `Huge` when the exact number would not fit into MAX_BITS."""
    if sympy.Tuple(base, exponent).has(Huge):
        raise Unreadable("a power too large")
    if getattr(base, "is_Rational", False) and getattr(exponent, "is_Rational", False) and base not in (0, 1, -1):
        bits = max(abs(base.p), base.q).bit_length()
        if abs(exponent) * bits > MAX_BITS:
            return Huge(base, exponent)
    return base**exponent


def _by_latex2sympy(text: str) -> Value:
    from latex2sympy2_extended import latex2sympy

    value = latex2sympy(text)
    if not isinstance(value, Expr):
        raise Unreadable("not an expression")
    return value.doit()


def _tokens(text: str) -> list[str]:
    """Tokens of the text; a whole matrix environment is one token. Words are split into names and letters."""
    tokens: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"unexpected {text[position]!r}")
        word = match["word"]
        tokens.extend(_split_word(word) if word else [match.group().strip()])
        position = match.end()
    return tokens


def _split_word(word: str) -> list[str]:
    if word in FUNCTIONS or word in CONSTANTS or word in GREEK or len(word) == 1:
        return [word]
    if match := re.fullmatch(r"([a-zA-Z]?)(pi|sin|cos|tan|ln|log|sqrt)([a-zA-Z]?)", word):
        return [part for part in match.groups() if part]
    if len(word) > 3:
        raise Unreadable(f"a word: {word!r}")
    return list(word)


class _Parser:
    """Recursive descent over a token list; each method reads one level of precedence and leaves the rest."""

    def __init__(self, tokens: list[str], applied: bool = False) -> None:
        self.tokens = tokens
        self.applied = applied
        self.at = 0
        self.depth = 0
        self.bars = 0  # open | at this point

    def peek(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token is None or (expected is not None and token != expected):
            raise Unreadable(f"expected {expected or 'more'}, found {token!r}")
        self.at += 1
        return token

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        self.depth -= 1
        return value

    def product(self) -> Value:
        value = self.signed()
        while True:
            token = self.peek()
            if token == "*":
                self.take()
                value = value * self.signed()
            elif token == "/":
                self.take()
                value = value / self.signed()
            elif token in _STOP or (token == "|" and self.bars):
                return value
            else:
                value = self._adjacent(value)

    def _adjacent(self, left: Value) -> Value:
        """A factor written without a sign: a mixed number when an integer stands before a proper fraction."""
        start, token = self.at, self.peek() or ""
        whole = self.tokens[start - 1].isdigit() and abs(left) == int(self.tokens[start - 1])
        if token[0].isdigit() and self.tokens[start - 2 : start - 1] == ["^"]:
            return left * self.powered()  # 2^6 3^5
        if token[0].isdigit() and re.fullmatch(r"[\d.]+", self.tokens[start - 1]):
            right = self._plain_fraction()
        else:
            right = self.powered()
            if not (token == "\\frac" and whole and right.is_Rational and right > 0):
                return left * right
        if not whole or not 0 < right < 1 or self.tokens[start - 2 : start - 1] == ["^"]:
            raise Unreadable("two numbers side by side")
        return left + right if left >= 0 else left - right

    def _plain_fraction(self) -> Value:
        top = self.take()
        self.take("/")
        return Rational(int(top), int(self.take()))

    def signed(self) -> Value:
        token = self.peek()
        if token in ("-", "+"):
            self.take()
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise Unreadable("nested too deeply")
            value = self.signed()
            self.depth -= 1
            return -value if token == "-" else value
        return self.powered()

    def powered(self) -> Value:
        value = self.postfixed()
        if self.peek() != "^":
            return value
        self.take()
        if self._degree():
            return value * sympy.pi / 180
        if isinstance(value, sympy.MatrixBase) and (form := self._transposed()):
            self.at += form
            return value.T
        return power(value, self.exponent())

    def _degree(self) -> bool:
        for form in (["\\circ"], ["{", "\\circ", "}"]):
            if self.tokens[self.at : self.at + len(form)] == form:
                self.at += len(form)
                return True
        return False

    def _transposed(self) -> int:
        """The number of tokens that say `transposed` here: T, {T}, \\top or \\intercal."""
        signs = [token for token in self.tokens[self.at : self.at + 3] if token not in "{}"]
        braced = self.tokens[self.at : self.at + 1] == ["{"]
        return (3 if braced else 1) if signs[:1] and signs[0] in ("T", "t", "\\top", "\\intercal") else 0

    def exponent(self) -> Value:
        return self.group("{") if self.peek() == "{" else self.signed()

    def postfixed(self) -> Value:
        value, start = self.atom(), self.at
        while self.peek() in ("!", "%", "\\%"):
            if self.at - start >= MAX_POSTFIXES:
                raise Unreadable("too many factorials or percent signs")
            if self.take() != "!":
                value = value / 100
            elif getattr(value, "is_Integer", False) and value > MAX_FACTORIAL:
                raise Unreadable("a factorial too large")
            else:
                value = sympy.factorial(value)
        return value

    def group(self, opening: str) -> Value:
        self.take(opening)
        bars, self.bars = self.bars, int(opening == "|")
        value = self.sum()
        self.bars = bars
        self.take(_OPENING[opening])
        return value

    def atom(self) -> Value:
        token = self.peek()
        if token is None:
            raise Unreadable("the expression ends early")
        if token[0].isdigit() or token[0] == ".":
            return Rational(self.take())
        if token.startswith("\\begin"):
            return _matrix(self.take())
        if token in _OPENING:
            value = self.group(token)
            if token == "|" and isinstance(value, sympy.MatrixBase):
                return value.det()
            outer = {"\\lfloor": sympy.floor, "\\lceil": sympy.ceiling, "|": sympy.Abs}.get(token)
            if outer and value.has(Huge):
                raise Unreadable("a part too large")
            return outer(value) if outer else value
        self.take()
        return self._named(token.lstrip("\\"))

    def _named(self, name: str) -> Value:
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            return top / bottom if name == "frac" else _binomial(top, bottom)
        if name == "sqrt":
            return self._root()
        if name in ("overline", "bar", "angle", "triangle"):
            return self._opaque(name)
        if name in FUNCTIONS:
            return self._function(name)
        if name in CONSTANTS and self.peek() != "_":
            return CONSTANTS[name]
        if name in ("f", "g", "h") and self.peek() == "(":
            return sympy.Function(name)(*self.arguments())
        if name in ("f", "g", "h") and self.tokens[self.at : self.at + 2] == ["{", "("]:
            return sympy.Function(name)(self.group("{"))
        if len(name) > 1 and name not in GREEK:
            raise Unreadable(f"unknown name {name!r}")
        symbol = Symbol(name + self._subscript())
        if self.applied and self._holds_one_name():
            return sympy.Function(symbol.name)(*self.arguments())
        return symbol

    def _holds_one_name(self) -> bool:
        """Whether a bracket with one number or one letter follows."""
        opened, inner, closed = [*self.tokens[self.at : self.at + 3], "", "", ""][:3]
        return (opened, closed) == ("(", ")") and (inner.isdigit() or (len(inner) == 1 and inner.isalpha()))

    def _opaque(self, name: str) -> Symbol:
        content = self._raw_argument()
        if any(character.isdigit() for character in content):
            raise Unreadable("digits under a bar")
        return Symbol(f"{name}({content})")

    def _subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        return "_" + self._raw_argument()

    def _raw_argument(self) -> str:
        """The tokens of a braced group, or one token, as text."""
        if self.peek() != "{":
            return self.take()
        self.take()
        parts = []
        while self.peek() != "}":
            if self.peek() == "{":
                raise Unreadable("a nested group in a name")
            parts.append(self.take())
        self.take()
        return "".join(parts)

    def argument(self) -> Value:
        """A braced group, one digit, or one atom: how TeX reads \\frac12."""
        token = self.peek()
        if token == "{":
            return self.group("{")
        if token is not None and token.isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return Integer(token[0])
        return self.atom()

    def _root(self) -> Value:
        degree = self.group("[") if self.peek() == "[" else Integer(2)
        radicand = self.group("{") if self.peek() == "{" else self.atom()
        if degree.is_Integer and degree % 2 and radicand.is_negative:
            return -((-radicand) ** (1 / degree))  # the real root
        return radicand ** (1 / degree)

    def _function(self, name: str) -> Value:
        base = exponent = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                base = self.argument()
            else:
                exponent = self.exponent()
        values = self.arguments() if self.peek() == "(" else [self._bare_argument()]
        if base is not None:
            values.append(base)
        if exponent == -1 and name in INVERSES:
            return INVERSES[name](*values)
        if any(value.has(Huge) for value in values):
            raise Unreadable("an argument too large")
        value = FUNCTIONS[name](*values)
        return value if exponent is None else power(value, exponent)

    def arguments(self) -> list[Value]:
        self.take("(")
        bars, self.bars = self.bars, 0
        values = [self.sum()]
        while self.peek() == ",":
            self.take()
            values.append(self.sum())
        self.take(")")
        self.bars = bars
        return values

    def _bare_argument(self) -> Value:
        """What `sin` applies to without brackets: the factors up to a sign, an operator or another function."""
        if self.peek() == "{":
            return self.group("{")
        value = self.signed()
        while True:
            token = self.peek()
            if token in _STOP or token in ("(", "[") or (token == "|" and self.bars):
                return value
            if token is None or token.lstrip("\\") in FUNCTIONS:
                return value
            value = self._adjacent(value)


def _binomial(top: Value, bottom: Value) -> Value:
    if max(abs(n) for n in (top, bottom, Integer(0)) if n.is_Integer) > MAX_FACTORIAL:
        raise Unreadable("a binomial coefficient too large")
    return sympy.binomial(top, bottom)


def _matrix(token: str) -> Value:
    match = _TOKEN.match(token)
    assert match is not None
    matrix = matrix_of([[parse_expression(cell) for cell in row] for row in _rows(match["body"])])
    return matrix.det() if match["env"] == "vmatrix" else matrix


def _rows(body: str) -> list[list[str]]:
    rows = re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-zA-Z])", body.replace("\\hline", ""))
    return [row.split("&") for row in rows if row.strip()]


def matrix_cells(text: str) -> list[str]:
    """The entries of a text that is one matrix and nothing else, row by row; [] for any other text."""
    match = _TOKEN.match(text.strip())
    if match is None or match.end() < len(text.strip()) or match["env"] in (None, "vmatrix"):
        return []
    return [cell for row in _rows(match["body"]) for cell in row]


def matrix_of(rows: Sequence[Sequence[Value]]) -> ImmutableMatrix:
    """An exact matrix; raises Unreadable unless all rows are equally long."""
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("rows of different lengths")
    return ImmutableMatrix([list(row) for row in rows])


def parse_prefix(text: str) -> Value:
    """The longest beginning of a text that is an expression. Raises Unreadable. Only the `tora` profile wants this."""
    tokens = _tokens(text)
    for length in range(len(tokens), 0, -1):
        parser = _Parser(tokens[:length])
        try:
            value = parser.sum()
        except (Unreadable, ArithmeticError, TypeError, ValueError, AttributeError):
            continue
        if parser.peek() is None:
            return value
    raise Unreadable("no beginning is an expression")

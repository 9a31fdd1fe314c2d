"""Words beside a number: which are a unit, which change the value, and which say something else.

A unit is a measure known by name or a noun phrase: words none of which is a number, a verb, a negation, a comparison
or another function word ("3 hundred", "5 or more" and "5 is not a solution" have no unit).
"""

from __future__ import annotations

import re
from fractions import Fraction

# One spelling each: left the name used in comparisons, right what else is written for it.
_SYNONYMS = """
cm: centimeter centimetre | mm: millimeter millimetre | km: kilometer kilometre | m: meter metre | inch: in inche
ft: foot feet | yd: yard | mile: mi | g: gram gm | kg: kilogram | mg: milligram | lb: pound lbs | oz: ounce
l: liter litre | ml: milliliter millilitre | s: second sec | min: minute | h: hour hr | day: | week: wk | month:
year: yr | $: dollar usd buck | cent: ¢ | €: euro eur | £: gbp | unit: | people: person | rad: radian | degree: deg
ohm: omega | hz: hertz | newton: | joule: | watt: | volt: | kelvin: | ampere: amp | pa: pascal | mol: mole
"""
_ENTRIES = [entry.partition(":") for entry in re.split(r"[|\n]", _SYNONYMS.strip())]
_ONE_SPELLING = {other: name.strip() for name, _, others in _ENTRIES for other in [name.strip(), *others.split()]}
_NAMES = frozenset(_ONE_SPELLING.values())
_COMPOUNDS = {"mph": "mile h^-1", "kph": "km h^-1", "kmh": "km h^-1", "kmph": "km h^-1"}
_LETTERS = {"N": "newton", "J": "joule", "W": "watt", "V": "volt", "K": "kelvin", "A": "ampere", "L": "l"}
SYMBOL_UNITS = "mglshLNJWVKACF"  # single letters that are units after a number and a space, and variables otherwise

# What may stand behind a unit, or in its place, and says nothing of the value.
_DECORATION_WORDS = "wide long tall high deep old away apart left total altogether in each all remaining length width"
_DECORATION = frozenset(_DECORATION_WORDS.split())
# The closed classes of English words, and the words of mathematics, that never are a unit.
_NO_UNIT_WORDS = """
is are was were be been being am isnt arent wasnt has have had do does did doesnt dont can could may might must
shall should will would cannot not no non never neither nor none without except excluding unless false wrong
incorrect invalid impossible extraneous rejected true correct right or and but either both if then else so because
since as when where while which who whom whose that this these those there here it its he she they we you i my our
your their his her a an the some any every another other others than at least most more less fewer greater larger
bigger smaller higher lower above below over under beyond up down onward onwards upward upwards about around
approximately approx roughly nearly almost exactly only just maybe perhaps possibly probably likely plus minus times
divided multiplied by mod modulo power root exclusive inclusive minimum maximum min max between from to until till
for with on after before again also too instead wait hmm actually answer solution solutions roots value values
even odd prime positive negative
"""
# What changes the number before it.
_CHANGING_WORDS = """
times divided multiplied plus minus mod modulo choose percent power root more less fewer
dozen dozens score gross pair pairs couple half halves third thirds quarter quarters squared cubed factorial doubled
tripled halved twice thrice fold infinity hundred hundreds thousand thousands million millions billion billions
trillion trillions googol
"""
_CHANGING = frozenset(_CHANGING_WORDS.split())
_NO_UNIT = _CHANGING | frozenset(_NO_UNIT_WORDS.split())
_NO_UNIT_ENDING = re.compile(r"n't$|fold$|tieths?$|teenths?$|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?$")

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {word: value for value, word in enumerate(_ONES.split())}
NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8}
_PARTS |= {"ninth": 9, "tenth": 10, "twelfth": 12}
_PARTS |= {f"{word}s": value for word, value in _PARTS.items()} | {"halves": 2}


def number_in_words(text: str) -> Fraction | None:
    """The number that a whole text spells in words: "forty-two", "negative five", "two thirds", "3 hundred"."""
    tokens = re.sub(r"[-\s]+|\band\b", " ", text.casefold()).split()
    if tokens[:1] in (["negative"], ["minus"]):
        value = _whole(tokens[1:])
        return None if value is None or len(tokens) < 2 else -value
    if not 0 < len(tokens) <= 12 or not any(token.isalpha() for token in tokens):
        return None
    if len(tokens) > 1 and (part := _PARTS.get(tokens[-1])):
        top = _whole(tokens[:-1])
        return None if top is None else Fraction(top) / part
    if tokens in (["a"], ["an"]):
        return None
    if tokens[0] == "half" and (len(tokens) == 1 or tokens[1] in ("a", "an")):
        whole = _whole(tokens[1:])
        return Fraction(1, 2) * whole if whole is not None else Fraction(1, 2) if len(tokens) == 1 else None
    if tokens[-2:] == ["a", "half"] and (whole := _whole(tokens[:-2])):
        return whole + Fraction(1, 2)
    return _whole(tokens)


def _whole(tokens: list[str]) -> Fraction | None:
    """Scales multiply what stands before them; smaller numbers behind larger ones are added."""
    total = group = Fraction(0)
    last = Fraction(10**15)
    for position, token in enumerate(tokens):
        if token in SCALES:
            group = (group or Fraction(1)) * SCALES[token]
            last = Fraction(SCALES[token])
            if SCALES[token] >= 1000:
                total, group = total + group, Fraction(0)
            continue
        value = _digit_word(token, position)
        if value is None or value >= last or (group % 10 and last < 100):
            return None
        group, last = group + value, Fraction(10) if value in range(20, 100, 10) else Fraction(1)
    return total + group


def _digit_word(token: str, position: int) -> Fraction | None:
    if token in ("a", "an") and position == 0:
        return Fraction(1)
    if token in NUMBER_WORDS:
        return Fraction(NUMBER_WORDS[token])
    return Fraction(token) if position == 0 and re.fullmatch(r"\d+(?:\.\d+)?", token) else None


def unit_name(text: str) -> str:
    """One spelling of a unit: "square centimeters", "cm^2", "\\text{ cm}^2"; "m/s", "m s^{-1}"; "" for "in total"."""
    text = re.sub(r"\\(?:text|,|;|:| )|[{}\\.*~()]", " ", text).strip()
    text = re.sub(r"\s*\^\s*(-?\d)", r"^\1", re.sub(r"\s*(?:/|\bper\b|\ban\b(?=\s+\w+$))\s*", " / ", text))
    exponents: dict[str, int] = {}
    sign, factor = 1, 1
    words = [word for word in text.split() if word.casefold() not in _DECORATION or text == "in"]
    for word in words:
        if word == "/":
            sign = -1
        elif word.casefold() in ("sq", "square", "cu", "cubic"):
            factor = 2 if word[0] in "sS" else 3
        else:
            base, _, exponent = word.partition("^")
            for one in _COMPOUNDS.get(base.casefold(), _one_unit(base)).split():
                name, _, inner = one.partition("^")
                exponents[name] = exponents.get(name, 0) + sign * factor * int(inner or 1) * _integer(exponent)
            sign, factor = 1 if sign == 1 else -1, 1
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(exponents.items()) if power)


def _integer(text: str) -> int:
    return int(text) if re.fullmatch(r"-?\d", text) else 1


def _one_unit(name: str) -> str:
    if len(name) == 1:
        return _LETTERS.get(name, name)
    name = name.casefold()
    singular = re.sub(r"(?<=x|h|s)es$|(?<!s)s$", "", name) if len(name) > 2 and name not in _ONE_SPELLING else name
    return _ONE_SPELLING.get(singular, singular)


def is_unit(text: str) -> bool:
    """Whether the text is a unit of measure this module knows by name."""
    return all(part.partition("^")[0] in _NAMES for part in unit_name(text).split())


def is_noun_phrase(text: str) -> bool:
    """Whether words may be dropped beside a number: one to five of them, none of which can change what is said."""
    text = re.sub(r"\\text|[{}\\,.;]", " ", text).casefold().replace("'", "")
    if re.fullmatch(r"\s*mod \d+\s*", text):
        return True
    text = re.sub(
        r"\bof (?:the|a|an|each|all)\b|\bin (?:total|all|length|width)\b|\bof them\b|\b(?:per|of)\b", " ", text
    )
    words = re.sub(r"\^\s*-?\d|[/*]", " ", text).split()
    if not 0 <= len(words) <= 5 or not all(re.fullmatch(r"[^\W\d_]+(?:-[^\W\d_]+)?", word) for word in words):
        return False
    return not any(says_more(word) for word in words)


def changes(word: str) -> bool:
    """Whether a word changes the number that it follows: "3 times", "2 dozen"."""
    return word.casefold() in _CHANGING or _NO_UNIT_ENDING.search(word.casefold()) is not None


def says_more(word: str) -> bool:
    """Whether a word can change what the number beside it says."""
    word = word.casefold().replace("'", "")
    parts = word.split("-")
    known = _NO_UNIT | NUMBER_WORDS.keys() | SCALES.keys()
    return any(part in known for part in parts) or _NO_UNIT_ENDING.search(word) is not None

"""Answers in running text: which answer a text states, how firmly, and everything that it mentions.

A sentence states an answer where it is nothing but a value, where it says "the answer is", where it ends in "is" or
"=" and a value, or where it holds one value only. The strongest kind of statement counts: boxes, then "the answer
is", then bare values and conclusions ("so ..."), then other sentences. It is firm where all statements of that kind
agree and no sentence hedges, denies or bounds it. What is not firm never makes a pair equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from eval.grading.answers import Answer, Family, Items, Named, Region, Scalar, Unread, Words
from eval.grading.compare import same
from eval.grading.extract import boxes
from eval.grading.reading import read
from eval.grading.units import NUMBER_WORDS, SCALES, changes, number_in_words, says_more

MAX_MENTIONS = 40
MAX_SENTENCES = 60


@dataclass(frozen=True)
class Statement:
    """answers: the different answers stated, as texts; firm: one only, and nothing takes it back."""

    answers: tuple[str, ...]
    firm: bool
    mentions: tuple[str, ...]


_THOUGHT = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_SENTENCES = re.compile(r"(?<=[.!?;])\s+(?=[^\d\s]|\d+\s*[^\s\d.])|\n+|(?<=[。！？；])")
_HEDGE = re.compile(
    r"\b(?:or|either|maybe|perhaps|possibly|probably|might|could|may|if|unless|alternatively|otherwise|approximately|"
    r"roughly|nearly|almost|between|at least|at most|than|wait|hmm|instead|but|however|unsure|guess|or so)\b"
    r"|\b(?:about|around|over|under|above|below|up to)\s+(?=[\d$\\\\])|\d\W{0,3}\s*\b(?:more|less|fewer)\b",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:not|never|no|cannot|neither|nor|wrong|incorrect|false|mistake|impossible|invalid|extraneous|reject(?:ed)?|"
    r"without|except|excluding|doubt|unlikely|too|fails?|contradicts?|contradiction|discard(?:ed)?|in base|"
    r"modulo|percent of)\b|n't\b|% of\b|\bnon\b",
    re.IGNORECASE,
)
_MARKER = re.compile(
    r"(?:\b(?:final\s+|correct\s+)?(?:answer|result|solution|option|choice)s?\b(?:\s+(?:to|for|of)\s[^.:=]*?)?\s*"
    r"(?:\bis\b|\bare\b|:|=|(?=\$|\\\(|\\\[))\s*:?|####|réponse\b\s*(?:est|:)|答案(?:是|为|：|:))\s*",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|be|equals?|equal to|gives?|gets?|yields?|becomes?|has|have|had|makes?|that|find)\b|[=:→⇒：]"
    r"|\\(?:approx|implies|Rightarrow|to)(?![a-zA-Z])",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"\s*(?:(?:so|thus|therefore|hence|consequently|then|in (?:total|all|conclusion)|altogether|finally|donc)\b|因此"
    r"|所以)",
    re.IGNORECASE,
)
_OPENER = re.compile(
    r"^(?:(?:so|thus|therefore|hence|then|and|yes|answer|that is|i\.e\.|namely|exactly|simply|just|clearly|definitely|"
    r"indeed|for sure|certainly|equal to|given by|equals?|is|are|option|choice|the|an?)\b[\s,:]*|[=:\s>]+)+",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"\s*(?:[,;(—–]\s*(?=[a-zA-Z(]|\\text)|\s-\s|\b(?:because|since|as|so|where|which|when|and|for|after|with|by|who|"
    r"in order|is|are|on|at|if|from|to|of|in|per|each)\b|(?<=[\d)}])(?=[^\x00-\u02af\u2000-\u2fff]))",
    re.IGNORECASE,
)
_PIECE = re.compile(
    r"(?P<math>\\begin\{(\w+)\}.*?\\end\{\2\}|\\[a-zA-Z]+\s*(?:\{[a-z]+\})?)"
    r"|(?P<word>(?<![\\a-zA-Z])(?!(?:sin|cos|tan|cot|sec|csc|log|ln|sqrt|pi|exp|oo|max|min|gcd|lcm|floor|ceil)\b)"
    r"[A-Za-z]{2,}\d*[A-Za-z]*(?:'[a-z]+)?|(?<![\w\\])(?:[aI]|A(?=\s+(?!is|are|or|and|was|isn)[a-z]))(?=[\s,])|[^\W\d_A-Za-z]+|\*\*|`)",
    re.DOTALL,
)


_WORD = re.compile(r"(?<![\\a-zA-Z{])[^\W\d_]{2,}")


# One list in several boxes, with nothing but joining words between them.
_BOXES = re.compile(
    r"(?:(?!\\boxed|\\fbox).)*(?:\\(?:boxed|fbox)\s*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
    r"(?:[\s$.,;&]|\\[\[\](),;! ]|\\q?quad|\\text|[{}]|\b(?:and|or)\b)*)+(?:(?!\\boxed|\\fbox).)*",
    re.DOTALL,
)


def complete(answer: Answer) -> bool:
    """Whether a text was read to its end: no words in it but a name or a short phrase that states one thing."""
    if isinstance(answer, Items | Region | Family):
        short = [part for part in answer.parts if isinstance(part, Scalar) and part.text.isalpha()]
        kinds = {isinstance(part, Words) for part in answer.parts if part not in short}
        return all(map(complete, answer.parts)) and len(kinds) < 2
    if isinstance(answer, Named):
        return complete(answer.value)
    if isinstance(answer, Words):
        counted = " " in answer.text and any(word in NUMBER_WORDS or word in SCALES for word in answer.text.split())
        told = re.search(r"\d|\b(?:is|are|it|its|answer|(?<!')[b-z])\b", answer.text)
        return len(answer.text.split()) <= 5 and not counted and not told
    return not isinstance(answer, Unread)


def in_prose(gold: str, prediction: str, exact: bool, decision: bool | None) -> bool | None:
    """The decision on two texts, one of them at least not read to its end; `decision` is that on the whole texts."""
    worded = [_is_phrase(read(text)) for text in (gold, prediction)]
    sides = [statement(gold, worded[1]), statement(prediction, worded[0])]
    clear = all(side.firm for side in sides)
    if clear:
        found = same(read(sides[0].answers[0]), read(sides[1].answers[0]), exact)
        if found is not False:
            return found
    if _holds(sides[0], sides[1], gold, prediction) or (exact and _holds(sides[1], sides[0], prediction, gold)):
        return None
    if clear:
        return False
    unclear = any(
        side.mentions and not side.firm and _WORD.search(text)
        for side, text in zip(sides, (gold, prediction), strict=True)
    )
    return None if unclear else decision


def _is_phrase(answer: Answer) -> bool:
    short = isinstance(answer, Scalar) and answer.text.isalpha() and len(answer.text) > 1
    return short or (isinstance(answer, Words) and complete(answer))


def _holds(part: Statement, whole: Statement, part_text: str, whole_text: str) -> bool:
    """Whether one text has the answer of the other in a readable place."""
    if _is_phrase(read(part_text)) or isinstance(read(part_text), Words):
        plain = [re.sub(r"[^\w]+", " ", text.casefold()).strip() for text in (part_text, whole_text)]
        if f" {plain[0]} " in f" {plain[1]} ":
            return True
    answers = [read(text) for text in part.answers[:4]]
    mentions = [read(text) for text in dict.fromkeys([*whole.answers, *whole.mentions])][:MAX_MENTIONS]
    return any(_among(answer, mentions) for answer in answers)


def _among(answer: Answer, mentions: list[Answer]) -> bool:
    if any(same(answer, mention, False) or same(mention, answer, False) for mention in mentions):
        return True
    return isinstance(answer, Items) and bool(answer.parts) and all(_among(part, mentions) for part in answer.parts)


def statement(text: str, in_words: bool = False) -> Statement:
    """What a text states. in_words: an answer may be a word or a short phrase."""
    whole = read(text)
    if complete(whole):
        return Statement((text,), True, (text,))
    text = _CONTROL.sub("", _THOUGHT.sub("", text))
    if (boxed := [box for box in boxes(text) if box]) and (answers := _different(boxed)):
        joined = ", ".join(answers)
        firm = complete(read(joined)) and (len(answers) == 1 or _BOXES.fullmatch(text) is not None)
        return Statement((joined,), firm, tuple(boxed[:MAX_MENTIONS]))
    numbered = [one.strip() for one in _SENTENCES.split(_plain(text)) if one and one.strip()]
    sentences = _without_numbering(numbered)[:MAX_SENTENCES]
    claims = [_claim(sentence, in_words) for sentence in sentences]
    mentions = [list(_mentions(sentence)) for sentence in sentences]
    if sentences != numbered:
        mentions.append([one.partition(".")[0] for one in numbered if one[0].isdigit()])
    everything = tuple(dict.fromkeys(mention for some in mentions for mention in some))[:MAX_MENTIONS]
    best = max((strength for strength, claim in claims if claim), default=0)
    if not best:
        return Statement((), False, everything)
    first = next(at for at, (strength, claim) in enumerate(claims) if claim and strength == best)
    answers = _different(
        claim
        for at, (strength, claim) in enumerate(claims)
        if claim and (strength == best or (strength > 1 and at > first))
    )
    unclear = best == 1 and any(not claim and some for (_, claim), some in zip(claims, mentions, strict=False))
    firm = len(answers) == 1 and not unclear and not _taken_back(answers[0], sentences, mentions, first, best)
    return Statement(answers, firm, everything)


_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_CONTROL = re.compile(r"(?<=\S)\s*<\|(?:im_end|im_start|endoftext|eot_id|end)\|>.*", re.DOTALL)


def _plain(text: str) -> str:
    """Without code, emphasis of single words and the delimiters of formulas."""
    text = re.sub(r"```.*?(?:```|\Z)", " ", text, flags=re.DOTALL)
    text = re.sub(r"\\text(?:bf|it|rm|normal)?\s*\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\\begin\{align\*?\}|\\end\{align\*?\}|\\\[|\\\]|\\\(|\\\)|(?<!\\)\$", " ", text)
    return re.sub(r"__|`", " ", text.replace("\u2212", "-"))


def _without_numbering(sentences: list[str]) -> list[str]:
    """Numbers of steps ("1.", "2.") at the start of sentences are no values."""
    steps = [one for one in sentences if re.match(r"\d{1,2}[.)](?:\s|$)", one)]
    if not steps or (len(steps) == 1 and not steps[0].startswith(("1.", "1)"))):
        return sentences
    return [one for one in (re.sub(r"^\d{1,2}[.)](?:\s+|$)", "", sentence) for sentence in sentences) if one]


def _claim(sentence: str, in_words: bool) -> tuple[int, str]:
    """The answer that a sentence states, "" if none or several, and how strongly: 3 to 1."""
    if sentence.rstrip().endswith("?"):
        return 0, ""
    if markers := list(_MARKER.finditer(sentence)):
        tail = sentence[markers[-1].end() :]
        if head := _head(tail, in_words) or _last_value(tail, in_words):
            return 3, head
    concluded = _CONCLUSION.match(sentence) is not None
    opened = _once(_OPENER.sub("", sentence))
    if opened and _is_value(opened, False) and not (concluded and opened != sentence and in_words):
        return 2, _stripped(opened)
    bold = [one for one in _BOLD.findall(sentence) if len(list(_values(one))) == 1]
    if len(bold) == 1:
        return 2, next(iter(_values(bold[0])))
    return (2 if concluded else 1), _last_value(sentence, in_words)


def _once(text: str) -> str:
    """A value that is said twice, "42 42" or "42 (forty-two)", once."""
    words = _stripped(text).split()
    if len(words) > 1 and len(set(words)) == 1:
        return words[0]
    match = re.fullmatch(r"(?P<value>[^()]+?)\s*\((?P<again>[^()]+)\)\s*[.!]?", text)
    if match and _is_value(match["value"], False) and _is_value(match["again"], False):
        return match["value"] if _agree(match["value"], match["again"]) else text
    return text


def _last_value(text: str, in_words: bool) -> str:
    """What the last "is" or "=" is followed by, else the only value; "" where neither is clear."""
    copulas = list(_COPULA.finditer(text))
    if copulas and copulas[-1].group() == "=":
        named = [value for value in _values(text) if "=" in value and isinstance(read(value), Named)]
        if named and text.rstrip(" .").endswith(named[-1]):
            return named[-1]
    if copulas and (head := _head(text[copulas[-1].end() :], in_words)):
        return head
    values = list(_values(text))
    if len(values) != 1:
        return ""
    before, _, after = text.partition(values[0])
    told = re.findall(r"[^\W\d_]+", before + after)  # a sentence: it has a verb or another function word
    following = re.match(r"\W*([a-zA-Z]+)", after)
    if following and changes(following[1]):
        return ""
    return values[0] if any(says_more(word) or not word.isascii() for word in told) else ""


def _head(tail: str, in_words: bool) -> str:
    """The value that a text begins with, up to a clause behind it; "" where there is none."""
    tail = _OPENER.sub("", tail.strip())
    ends = [match.start() for match in _CLAUSE.finditer(tail) if match.start() > 0]
    for end in [len(tail), *reversed(ends[-12:])]:
        if _is_value(tail[:end], in_words):
            return _stripped(tail[:end])
    return ""


def _stripped(text: str) -> str:
    return re.sub(r"^[\s,:=*]+|[\s,.;:!*]+$", "", text)


def _is_value(text: str, in_words: bool) -> bool:
    text = _stripped(text)
    if not text or len(text) > 300:
        return False
    answer = read(text)
    word = isinstance(answer, Scalar) and text.isalpha() and (len(text) > 2 or text.istitle()) and len(text) > 1
    if isinstance(answer, Words) or word:
        return in_words and complete(answer)
    return complete(answer)


def _values(sentence: str) -> Iterable[str]:
    """Formulas and numbers of a sentence, in order."""
    start = 0
    pieces = []
    for match in _PIECE.finditer(sentence):
        if match["word"]:
            pieces.append(sentence[start : match.start()])
            start = match.end()
    pieces.append(sentence[start:])
    for piece in pieces:
        piece = _stripped(piece).strip("()") if piece.count("(") != piece.count(")") else _stripped(piece)
        if re.search(r"\w", piece) and not isinstance(read(piece), Words):
            yield piece
    words = [*NUMBER_WORDS, *SCALES]
    for match in re.finditer(rf"\b(?:(?:{'|'.join(words)})\b[-\s]*(?:and\s+)?)+", sentence, re.IGNORECASE):
        if (value := number_in_words(match.group().strip(" -"))) is not None and match.group().strip().lower() != "one":
            yield str(value)


def _mentions(sentence: str) -> Iterable[str]:
    for value in _values(sentence):
        yield value
        for part in re.split(r"=|\\approx|≈|→|\\implies", value):
            if _stripped(part) and part != value:
                yield _stripped(part)
        yield from (_stripped(part) for part in re.split(r",\s|\s{2,}", value) if part != value and _stripped(part))


def _different(answers: Iterable[str]) -> tuple[str, ...]:
    """One of each: answers that say the same count once, and the fullest spelling stays."""
    kept: list[str] = []
    for answer in list(answers)[:12]:
        twin = next((at for at, one in enumerate(kept) if _agree(answer, one)), None)
        if twin is None:
            kept.append(answer)
        elif len(answer) > len(kept[twin]) and same(read(kept[twin]), read(answer), True):
            kept[twin] = answer
    return tuple(kept)


def _agree(first: str, second: str) -> bool:
    return first == second or bool(same(read(first), read(second), False) or same(read(second), read(first), False))


def _taken_back(answer: str, sentences: list[str], mentions: list[list[str]], first: int, rank: int) -> bool:
    """Whether a sentence denies the answer, or hedges and has another value; before "the answer is" all is allowed."""
    for at, sentence in enumerate(sentences):
        if rank == 3 and at < first:
            continue
        hedged, denied = _HEDGE.search(sentence), _DENIAL.search(sentence)
        if not hedged and not denied:
            continue
        agreeing = [_agree(answer, mention) for mention in mentions[at]] or [denied is not None]
        if (True in agreeing and at >= first) or (False in agreeing and (hedged or at > first)):
            return True
        if (hedged or denied) and at == first:
            return True
    return False

"""Long chains of dependent steps for the embedded model: a quantity that changes entry by entry, controls in brackets.

Each entry changes the quantity s, and its control is s after it, modulo a small number that the question states. Four
of ten entries have lost their sign: six of ten of these are additions, and nothing but the control tells which.
The readings of an entry without a sign never share a control, so text and controls have one answer. A step quotes one
entry, changes s and prints the residual, s minus the control modulo the number: 0 where nothing speaks against the
reading. A wrong reading is never repaired: every later quantity is wrong too, and nothing checks the whole. Of the
wrong readings of entries with a word one in 7 or 9 prints 0 as well, and is seen by those only who know the word.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["plain", "hard", "lost"]
LENGTHS = range(9, 11)  # entries of a chain; the training split has shorter ones too, which are solved more often
TRAINING_LENGTHS = range(2, 11)
LABELS = [f"{letter})" for letter in "abcdefghij"]  # of the entries, in a question and in its steps
MODULI = (7, 9)  # so controls are single digits, and every entry of a story is as long
LOST, HARD, FACTOR = 0.4, 0.2, 0.1  # shares of entries without a sign, with an uncommon word, and with a factor
PLUS = 0.6  # how many of the lost signs are additions


@dataclass(frozen=True)
class Entry:
    """amount, word: as the question says them; code, misread: of its right and of its wrong reading; control: s after
    it, modulo the number of the question."""

    kind: Kind
    amount: str
    word: str
    code: str
    misread: str
    control: int

    def quoted(self, at: int) -> str:
        """The entry as it stands in a question, at a place of it, and in the step that reads it."""
        return f"{LABELS[at]} {self.word} {self.amount} [{self.control}]"


@dataclass(frozen=True)
class Chain:
    """start: the first value of s; modulus: of the controls."""

    start: int
    modulus: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Story:
    """question: with {start}, {modulus} and {entries}. plain, hard: words with the sign of what they do to s; lost: the
    word of an entry whose sign is lost. packs: amounts are products; factors: whether s may be multiplied, or divided
    where the entries are undone."""

    question: str
    plain: dict[str, str]
    hard: dict[str, str]
    lost: str
    packs: bool = False
    factors: Literal["", "*=", "//="] = ""


STORIES = {
    "ledger": Story(
        "An account holds {start}. Entries, [balance mod {modulus}]: {entries} What is the balance?",
        {"deposit": "+", "wage": "+", "rent": "-", "fee": "-"},
        {"refund": "+", "rebate": "+", "levy": "-", "chargeback": "-"},
        "entry",
    ),
    "inventory": Story(
        "A store has {start} pens. Changes, [stock mod {modulus}]: {entries} How many pens are left?",
        {"bought": "+", "made": "+", "sold": "-", "used": "-"},
        {"returned": "+", "recalled": "+", "consigned": "-", "pledged": "-"},
        "moved",
        packs=True,
    ),
    "register": Story(
        "A register is {start}. Program, [register mod {modulus}]: {entries} What is in it at the end?",
        {"add": "+", "inc": "+", "sub": "-", "dec": "-"},
        {"push": "+", "load": "+", "pop": "-", "spill": "-"},
        "op",
        factors="*=",
    ),
    "equation": Story(
        "x became {start}. Undo, [result mod {modulus}]: {entries} What is x?",
        {"plus": "-", "minus": "+"},
        {"gained": "-", "lost": "+"},
        "changed",
        factors="//=",
    ),
}


def draw_entry(rng: random.Random, story: Story, s: int, modulus: int, factors: bool) -> tuple[Entry, int]:
    """The next entry after the quantity `s`, and the quantity after it."""
    draw = rng.random()
    if factors and draw < FACTOR:
        by = rng.choice((2, 3))
        divides = story.factors == "//="
        code, misread = f"s{story.factors}{by}", f"s+={by}"
        s = s // by if divides else s * by
        return Entry("plain", str(by), "times", code, misread, s % modulus), s
    kind: Kind = "lost" if draw > 1 - LOST else "hard" if draw > 1 - LOST - HARD else "plain"
    words = {"plain": story.plain, "hard": story.hard}.get(kind, {story.lost: "+" if rng.random() < PLUS else "-"})
    word = rng.choice(list(words))
    sign, other = words[word], "-" if words[word] == "+" else "+"
    while True:
        first, second = (rng.randint(11, 99), rng.randint(2, 9)) if story.packs else (rng.randint(100, 999), 1)
        if kind != "lost" or (2 * first * second) % modulus:
            break
    amount = f"{first}*{second}" if story.packs else str(first)
    s += first * second * (1 if sign == "+" else -1)
    return Entry(kind, amount, word, f"s{sign}={amount}", f"s{other}={amount}", s % modulus), s


def draw_chain(rng: random.Random, story: Story, length: int) -> tuple[Chain, int]:
    """A chain whose quantity stays positive and whole, and its last quantity."""
    while True:
        start, modulus = rng.randint(2000, 9999), rng.choice(MODULI)
        s, multiplied = start, 0
        entries: list[Entry] = []
        changes: set[int] = set()  # distinct ones, or two wrong readings would cancel each other
        while len(entries) < length:
            may = bool(story.factors) and multiplied < 2 and (story.factors == "*=" or s % 6 == 0)
            before = s
            entry, s = draw_entry(rng, story, s, modulus, may)
            multiplied += entry.word == "times"
            entries.append(entry)
            changes.add(abs(s - before))
            if s <= 0 or len(changes) < len(entries):
                break
        else:
            return Chain(start, modulus, tuple(entries)), s


def question(story: Story, chain: Chain) -> str:
    entries = " ".join(one.quoted(at) for at, one in enumerate(chain.entries))
    return story.question.format(start=chain.start, modulus=chain.modulus, entries=entries)


def program(chain: Chain) -> str:
    """The code of the right readings: what the chain is, whatever the words around it."""
    return ";".join([f"s={chain.start}", *(one.code for one in chain.entries), f"s%{chain.modulus}"])

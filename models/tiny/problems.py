"""Problems for the embedded model, written by a seeded generator: guess and check, and long chains of dependent steps.

    python -m models.tiny.problems --family guess|chains|all --seed S --n N --output FILE.jsonl

chains.py says what a chain is; half of `all` are chains. Every problem of guess and check carries the code of a check
f(x), the error of x in whole percent: zero at the answer only, negative below it, positive above it (except in the
families `remainders`, whose check gives no direction, and `shop`, which is plain arithmetic). A hash of its family
and check selects the split that a problem belongs to. So two splits share neither a question nor an equation in other
words, whatever the seeds: fresh test problems never occur in training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import gcd
from pathlib import Path
from typing import Literal, get_args

from mcts.jsonl import write_text_whole
from models.tiny.chains import LENGTHS, STORIES, TRAINING_LENGTHS, Chain, draw_chain, program
from models.tiny.chains import question as chain_question

Family = Literal["guess", "chains", "all"]
Split = Literal["train", "dev", "test"]
SPLITS: dict[Split, range] = {"train": range(8), "dev": range(8, 9), "test": range(9, 10)}  # tenths of the hash
SEEDS: dict[Split, int] = {"train": 1, "dev": 2, "test": 3}  # of the shipped sets
DATA = Path(__file__).parent / "data"  # dev.jsonl and heldout.jsonl

SMALLEST, LARGEST = 3, 45  # answers, except in `shop`
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kim", "Lea", "Mia", "Noor", "Omar")


FORMS = {
    **dict.fromkeys(
        ("quadratic", "cubic"),
        (
            "Find the positive integer x with {left} = {total}.",
            "Solve {left} = {total} for a positive integer x.",
            "For which positive integer x is {left} equal to {total}?",
        ),
    ),
    "rectangle": (
        "A {thing} is {longer} m longer than it is wide. Its area is {area} square metres. How wide is it?",
        "A rectangular {thing} covers {area} square metres. Its length is its width plus {longer} m. "
        "What is the width?",
    ),
    "sum_product": (
        "Two numbers have sum {total} and product {product}. What is the smaller one?",
        "{name} thinks of two numbers. They add up to {total}, their product is {product}. Give the smaller number.",
    ),
    "coins": (
        "{name} has {count} coins, some worth {low} cents and some worth {high} cents, {total} cents in all. "
        "How many {high}-cent coins are there?",
        "A theatre sold {count} tickets for {total} dollars. A child pays {low} dollars, an adult {high}. "
        "How many adults came?",
    ),
    "ages": (
        "{first} is {older} years older than {second}. In {wait} years the product of their ages will be {product}. "
        "How old is {second}?",
        "{second} is {older} years younger than {first}. The product of their ages {wait} years from now is {product}. "
        "What is the age of {second} today?",
    ),
    "squares": (
        "Two positive integers differ by {apart} and their squares add up to {total}. What is the smaller one?",
    ),
    "savings": (
        "{name} saves {first} cents on the first day and {more} cents more on each day than the day before. "
        "After how many days are {total} cents saved?",
        "A hall has {first} seats in the first row and {more} more in each next row, {total} seats in all. "
        "How many rows are there?",
    ),
    "remainders": (
        "What is the smallest positive integer that leaves remainder {p} when divided by {a} "
        "and remainder {q} when divided by {b}?",
    ),
}


@dataclass(frozen=True)
class Problem:
    """question: the text; answer: an integer; check: code of f(x), or of the result in `shop` and the chains."""

    family: str
    question: str
    answer: int
    check: str
    chain: Chain | None = None


def answer(rng: random.Random) -> int:
    return rng.randint(SMALLEST, LARGEST)


def percent(left: str, total: int) -> str:
    """Code of the error, in whole percent, of the equation left = total."""
    return f"{left}*100//{total}-100"


def polynomial(coefficients: Iterable[int], power: str, times: str) -> str:
    """Text of a polynomial without constant term, highest power first; zero coefficients are left out."""
    *high, _ = [*coefficients, 0]
    parts = []
    for exponent, c in zip(range(len(high), 0, -1), high, strict=True):
        if c:
            factor = "" if abs(c) == 1 else f"{abs(c)}{times}"
            name = "x" if exponent == 1 else f"x{power}{exponent}"
            parts.append(("-" if c < 0 else "+") + factor + name)
    return "".join(parts).removeprefix("+")


def worded(rng: random.Random, family: str, solution: int, check: str, **parts: object) -> Problem:
    """The problem in one of the surface forms of its family."""
    forms = FORMS[family]
    form = rng.choice(forms) if len(forms) > 1 else forms[0]
    return Problem(family, form.format(**parts), solution, check)


def quadratic(rng: random.Random) -> Problem:
    root, a = answer(rng), rng.choice((1, 1, 2, 3, 4, 5))
    return power_sum(rng, "quadratic", root, [a, rng.randint(1 - a * root // 2, 99)])


def cubic(rng: random.Random) -> Problem:
    return power_sum(rng, "cubic", answer(rng), [1, rng.randint(0, 30), rng.randint(0, 99)])


def power_sum(rng: random.Random, family: str, root: int, coefficients: list[int]) -> Problem:
    degree = len(coefficients)
    total = sum(c * root ** (degree - i) for i, c in enumerate(coefficients))
    check = percent(f"({polynomial(coefficients, '**', '*')})", total)
    return worded(rng, family, root, check, left=polynomial(coefficients, "^", ""), total=total)


def rectangle(rng: random.Random) -> Problem:
    width, longer = answer(rng), rng.randint(1, 150)
    area, thing = width * (width + longer), rng.choice(("garden", "field", "hall", "carpet", "yard"))
    check = percent(f"x*(x+{longer})", area)
    return worded(rng, "rectangle", width, check, longer=longer, area=area, thing=thing)


def sum_product(rng: random.Random) -> Problem:
    small = answer(rng)
    large = small + rng.randint(1, 120)
    total, product = small + large, small * large
    check = percent(f"x*({total}-x)", product)
    return worded(rng, "sum_product", small, check, total=total, product=product, name=rng.choice(NAMES))


def coins(rng: random.Random) -> Problem:
    low, high = rng.randint(1, 9), rng.randint(10, 60)
    many, few = answer(rng), rng.randint(5, 95)
    count, total, name = many + few, many * high + few * low, rng.choice(NAMES)
    check = percent(f"({high}*x+{low}*({count}-x))", total)
    return worded(rng, "coins", many, check, name=name, count=count, low=low, high=high, total=total)


def ages(rng: random.Random) -> Problem:
    young, older, wait = answer(rng), rng.randint(1, 60), rng.randint(1, 30)
    first, second = rng.sample(NAMES, 2)
    product = (young + wait) * (young + older + wait)
    check = percent(f"(x+{wait})*(x+{older}+{wait})", product)
    return worded(rng, "ages", young, check, first=first, second=second, older=older, wait=wait, product=product)


def squares(rng: random.Random) -> Problem:
    small, apart = answer(rng), rng.randint(1, 120)
    total = small**2 + (small + apart) ** 2
    return worded(rng, "squares", small, percent(f"(x**2+(x+{apart})**2)", total), apart=apart, total=total)


def savings(rng: random.Random) -> Problem:
    days, first, more = answer(rng), rng.randint(1, 99), 2 * rng.randint(1, 15)
    total, name = days * first + more // 2 * days * (days - 1), rng.choice(NAMES)
    check = percent(f"({first}*x+{more}*x*(x-1)//2)", total)
    return worded(rng, "savings", days, check, name=name, first=first, more=more, total=total)


def remainders(rng: random.Random) -> Problem:
    a = rng.randint(5, 15)
    b = rng.choice([b for b in range(5, 16) if gcd(a, b) == 1])
    number = rng.randint(SMALLEST, min(LARGEST, a * b - 1))
    p, q = number % a, number % b
    return worded(rng, "remainders", number, f"(x%{a}-{p},x%{b}-{q})", a=a, b=b, p=p, q=q)


def shop(rng: random.Random) -> Problem:
    packs, size = rng.randint(5, 60), rng.randint(5, 60)
    part = rng.randint(5, min(90, packs * size - 1))
    name, thing = rng.choice(NAMES), rng.choice(("apples", "pens", "eggs", "cards", "rolls"))
    end, code = rng.choice(
        (
            (" and gives {part} away. How many are left?", "{packs}*{size}-{part}"),
            (" and finds {part} more. How many are there now?", "{packs}*{size}+{part}"),
            (", then {part} more boxes. How many in all?", "({packs}+{part})*{size}"),
        )
    )
    code = code.format(packs=packs, size=size, part=part)
    question = f"{name} buys {packs} boxes of {size} {thing}{end.format(part=part)}"
    return Problem("shop", question, int(eval(code)), code)


# family -> (generator, how often in a hundred problems)
FAMILIES: dict[str, tuple[Callable[[random.Random], Problem], int]] = {
    "quadratic": (quadratic, 14),
    "cubic": (cubic, 8),
    "rectangle": (rectangle, 12),
    "sum_product": (sum_product, 14),
    "coins": (coins, 12),
    "ages": (ages, 12),
    "squares": (squares, 8),
    "savings": (savings, 10),
    "remainders": (remainders, 4),
    "shop": (shop, 6),
}


def chain_problem(rng: random.Random, split: Split) -> Problem:
    family = rng.choice(list(STORIES))
    lengths = TRAINING_LENGTHS if split == "train" else LENGTHS
    length = rng.choices(lengths, [1 / n for n in lengths])[0]  # short ones more often: as many entries of each length
    chain, result = draw_chain(rng, STORIES[family], length)
    return Problem(family, chain_question(STORIES[family], chain), result, program(chain), chain)


def draw(rng: random.Random, family: Family, split: Split) -> Problem:
    """Any problem of the family, of whatever split; training chains are of all lengths."""
    if family == "chains" or (family == "all" and rng.random() < 0.5):
        return chain_problem(rng, split)
    makers, weights = zip(*FAMILIES.values(), strict=True)
    make: Callable[[random.Random], Problem] = rng.choices(makers, weights)[0]
    return make(rng)


def decides(problem: Problem) -> bool:
    """Whether the check tells the answer from the next number, in spite of its rounding."""
    plain = problem.chain is not None or problem.family == "shop"
    return plain or eval(problem.check, {"x": problem.answer + 1}) != 0


def split_of(problem: Problem) -> Split:
    """The split that owns an equation, whatever the words around it."""
    digest = hashlib.sha256(f"{problem.family}:{problem.check}".encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    return next(split for split, tenths in SPLITS.items() if tenth in tenths)


def stream(seed: int, split: Split, family: Family = "guess") -> Iterator[Problem]:
    """Endless distinct problems of a split; the same seed gives the same problems."""
    rng = random.Random(f"arbor tiny {split} {seed}")
    seen: set[str] = set()
    while True:
        problem = draw(rng, family, split)
        if split_of(problem) == split and problem.question not in seen and decides(problem):
            seen.add(problem.question)
            yield problem


def generate(seed: int, n: int, split: Split = "test", family: Family = "guess") -> list[Problem]:
    return list(islice(stream(seed, split, family), n))


def write(problems: Iterable[Problem], path: Path) -> None:
    """One JSON object a line: `question`, `answer` (a string) and `family`."""
    rows = ({"question": p.question, "answer": str(p.answer), "family": p.family} for p in problems)
    write_text_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write fresh problems for the embedded model.")
    parser.add_argument("--seed", type=int, default=SEEDS["test"])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--family", choices=get_args(Family), default="guess")
    parser.add_argument("--split", choices=tuple(SPLITS), default="test")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.n < 1:
        parser.error(f"--n is {options.n}; it must be at least 1")
    write(generate(options.seed, options.n, options.split, options.family), options.output)
    print(f"{options.n} problems in {options.output}")


if __name__ == "__main__":
    main()

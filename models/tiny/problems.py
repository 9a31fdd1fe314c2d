"""Guess-and-check problems for the embedded model, written by a seeded generator.

    python -m models.tiny.problems --seed S --n N --output FILE.jsonl

Every problem carries the code of a residual f(x): zero at the answer, negative below it, positive above it
(except in the families `remainders`, whose residual gives no direction, and `shop`, which is plain arithmetic).
A problem belongs to the split that a hash of its family and residual selects, so two splits share neither a
question nor an equation in other words, whatever the seeds: fresh test problems never occur in training.
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
from typing import Literal

Split = Literal["train", "dev", "test"]
SPLITS: dict[Split, range] = {"train": range(8), "dev": range(8, 9), "test": range(9, 10)}  # tenths of the hash
SEEDS: dict[Split, int] = {"train": 1, "dev": 2, "test": 3}  # of the shipped sets
DATA = Path(__file__).parent / "data"  # dev.jsonl and heldout.jsonl

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun", "Kim", "Lea", "Mia", "Noor", "Omar")


@dataclass(frozen=True)
class Problem:
    """question: the text; answer: an integer; residual: code of f(x), or of the result in the family `shop`."""

    family: str
    question: str
    answer: int
    residual: str


def signed(number: int) -> str:
    return f"+{number}" if number >= 0 else f"-{-number}"


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


def polynomial_problem(rng: random.Random, family: str, root: int, coefficients: list[int]) -> Problem:
    degree = len(coefficients)
    total = sum(c * root ** (degree - i) for i, c in enumerate(coefficients))
    shown = polynomial(coefficients, "^", "")
    question = rng.choice(
        (
            f"Find the positive integer x with {shown} = {total}.",
            f"Solve {shown} = {total} for a positive integer x.",
            f"For which positive integer x is {shown} equal to {total}?",
        )
    )
    return Problem(family, question, root, f"{polynomial(coefficients, '**', '*')}-{total}")


def quadratic(rng: random.Random) -> Problem:
    root = rng.randint(5, 95)
    a = rng.choice((1, 1, 2, 3, 4, 5))
    return polynomial_problem(rng, "quadratic", root, [a, rng.randint(1 - a * root if root > 40 else 0, 90)])


def cubic(rng: random.Random) -> Problem:
    return polynomial_problem(rng, "cubic", rng.randint(5, 95), [1, rng.randint(0, 20), rng.randint(0, 90)])


def rectangle(rng: random.Random) -> Problem:
    width, longer = rng.randint(5, 95), rng.randint(1, 90)
    area = width * (width + longer)
    thing = rng.choice(("garden", "field", "hall", "carpet", "yard"))
    question = rng.choice(
        (
            f"A {thing} is {longer} m longer than it is wide. Its area is {area} square metres. How wide is it?",
            f"A rectangular {thing} covers {area} square metres. Its length is its width plus {longer} m. "
            f"What is the width?",
        )
    )
    return Problem("rectangle", question, width, f"x*(x+{longer})-{area}")


def sum_product(rng: random.Random) -> Problem:
    small = rng.randint(5, 95)
    large = small + rng.randint(1, 90)
    total, product = small + large, small * large
    question = rng.choice(
        (
            f"Two numbers have sum {total} and product {product}. What is the smaller one?",
            f"{rng.choice(NAMES)} thinks of two numbers. They add up to {total}, their product is {product}. "
            f"Give the smaller number.",
        )
    )
    return Problem("sum_product", question, small, f"x*({total}-x)-{product}")


def coins(rng: random.Random) -> Problem:
    low, high = rng.randint(1, 9), rng.randint(10, 60)
    many, few = rng.randint(5, 95), rng.randint(5, 95)
    count, total = many + few, many * high + few * low
    name = rng.choice(NAMES)
    question = rng.choice(
        (
            f"{name} has {count} coins, some worth {low} cents and some worth {high} cents, {total} cents in all. "
            f"How many {high}-cent coins are there?",
            f"A theatre sold {count} tickets for {total} dollars. A child pays {low} dollars, an adult {high}. "
            f"How many adults came?",
        )
    )
    return Problem("coins", question, many, f"{high}*x+{low}*({count}-x)-{total}")


def ages(rng: random.Random) -> Problem:
    young, older, wait = rng.randint(5, 95), rng.randint(1, 60), rng.randint(1, 30)
    first, second = rng.sample(NAMES, 2)
    product = (young + wait) * (young + older + wait)
    question = rng.choice(
        (
            f"{first} is {older} years older than {second}. In {wait} years the product of their ages will be "
            f"{product}. How old is {second}?",
            f"{second} is {older} years younger than {first}. The product of their ages {wait} years from now is "
            f"{product}. What is the age of {second} today?",
        )
    )
    return Problem("ages", question, young, f"(x+{wait})*(x+{older}+{wait})-{product}")


def squares(rng: random.Random) -> Problem:
    small, apart = rng.randint(5, 95), rng.randint(1, 90)
    total = small**2 + (small + apart) ** 2
    question = f"Two positive integers differ by {apart} and their squares add up to {total}. What is the smaller one?"
    return Problem("squares", question, small, f"x**2+(x+{apart})**2-{total}")


def savings(rng: random.Random) -> Problem:
    days, first, more = rng.randint(5, 95), rng.randint(1, 60), 2 * rng.randint(1, 10)
    total = days * first + more // 2 * days * (days - 1)
    name = rng.choice(NAMES)
    question = rng.choice(
        (
            f"{name} saves {first} cents on the first day and {more} cents more on each day than the day before. "
            f"After how many days are {total} cents saved?",
            f"A hall has {first} seats in the first row and {more} more in each next row, {total} seats in all. "
            f"How many rows are there?",
        )
    )
    return Problem("savings", question, days, f"{first}*x+{more}*x*(x-1)//2-{total}")


def remainders(rng: random.Random) -> Problem:
    a = rng.randint(5, 15)
    b = rng.choice([b for b in range(5, 16) if gcd(a, b) == 1])
    number = rng.randint(5, min(95, a * b - 1))
    question = (
        f"What is the smallest positive integer that leaves remainder {number % a} when divided by {a} "
        f"and remainder {number % b} when divided by {b}?"
    )
    return Problem("remainders", question, number, f"(x%{a}-{number % a},x%{b}-{number % b})")


def shop(rng: random.Random) -> Problem:
    packs, size = rng.randint(5, 60), rng.randint(5, 60)
    part = rng.randint(5, min(90, packs * size - 1))
    name, thing = rng.choice(NAMES), rng.choice(("apples", "pens", "eggs", "cards", "rolls"))
    start, whole = f"{name} buys {packs} boxes of {size} {thing}", packs * size
    question, answer, code = rng.choice(
        (
            (f"{start} and gives {part} away. How many are left?", whole - part, f"{packs}*{size}-{part}"),
            (f"{start} and finds {part} more. How many are there now?", whole + part, f"{packs}*{size}+{part}"),
            (
                f"{start}, then {part} more boxes. How many in all?",
                (packs + part) * size,
                f"({packs}+{part})*{size}",
            ),
        )
    )
    return Problem("shop", question, answer, code)


# family -> (generator, how often in a hundred problems)
FAMILIES: dict[str, tuple[Callable[[random.Random], Problem], int]] = {
    "quadratic": (quadratic, 14),
    "cubic": (cubic, 8),
    "rectangle": (rectangle, 12),
    "sum_product": (sum_product, 12),
    "coins": (coins, 12),
    "ages": (ages, 12),
    "squares": (squares, 8),
    "savings": (savings, 10),
    "remainders": (remainders, 4),
    "shop": (shop, 8),
}


def split_of(problem: Problem) -> Split:
    """The split that owns an equation, whatever the words around it."""
    digest = hashlib.sha256(f"{problem.family}:{problem.residual}".encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    return next(split for split, tenths in SPLITS.items() if tenth in tenths)


def stream(seed: int, split: Split) -> Iterator[Problem]:
    """Endless distinct problems of a split; the same seed gives the same problems."""
    rng = random.Random(f"arbor tiny {split} {seed}")
    makers = [maker for maker, _ in FAMILIES.values()]
    weights = [weight for _, weight in FAMILIES.values()]
    seen: set[str] = set()
    while True:
        problem = rng.choices(makers, weights)[0](rng)
        if split_of(problem) == split and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def generate(seed: int, n: int, split: Split = "test") -> list[Problem]:
    return list(islice(stream(seed, split), n))


def write(problems: Iterable[Problem], path: Path) -> None:
    """One JSON object a line: `question`, `answer` (a string) and `family`."""
    rows = ({"question": p.question, "answer": str(p.answer), "family": p.family} for p in problems)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write fresh problems for the embedded model.")
    parser.add_argument("--seed", type=int, default=SEEDS["test"])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--split", choices=tuple(SPLITS), default="test")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.n < 1:
        parser.error(f"--n is {options.n}; it must be at least 1")
    write(generate(options.seed, options.n, options.split), options.output)
    print(f"{options.n} problems in {options.output}")


if __name__ == "__main__":
    main()

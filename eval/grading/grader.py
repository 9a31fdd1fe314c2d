"""Whether a prediction is the gold answer: equal, different or undecided, with the reason.

    python -m eval.grader --pairs FILE.jsonl [--policy P] [--json]

Plain pairs are settled here at once. Everything that needs computer algebra runs in a worker process under a time
and a memory limit; a comparison that reaches one is undecided. The policies are described in docs/grading.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

from eval.grading.extract import boxes
from eval.grading.gold import read_gold
from eval.grading.numbers import read_number, same_number
from eval.grading.policies import POLICIES, PROFILES
from eval.grading.text import MAX_NESTING, clean, nested, words
from eval.grading.verdict import Grade, Verdict, different, equal, undecided
from eval.grading.worker import shared_workers

__all__ = ["POLICIES", "Grade", "Verdict", "grade", "grade_async"]

MAX_LENGTH = 2000  # characters; a longer answer is only compared as text
CACHE_SIZE = 65536  # pairs


def grade(gold: object, prediction: str, policy: str = "default") -> Grade:
    """Compare a prediction with a gold answer or with each of several accepted ones; any match is equal.

    gold: what `read_gold` reads; the profiles take texts as they are. What is no answer leaves the pair undecided.
    Synchronous, bounded in time, callable from any thread. Raises ValueError for an unknown policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy {policy!r} is unknown: choose one of {', '.join(POLICIES)}")
    try:
        golds = _texts(gold) if policy in PROFILES else read_gold(gold)
    except ValueError as error:
        return undecided(str(error))
    grades = []
    for one in golds:
        grades.append(_grade_one(one, prediction, policy))
        if grades[-1].verdict is Verdict.EQUAL:
            return grades[-1]
    return next((one for one in grades if one.verdict is Verdict.UNDECIDED), None) or (
        grades[0] if grades else undecided("no gold answer is given")
    )


def _texts(gold: object) -> Sequence[str]:
    return [str(one) for one in gold] if isinstance(gold, list | tuple) else [str(gold)]


async def grade_async(gold: object, prediction: str, policy: str = "default") -> Grade:
    """`grade` without blocking the event loop."""
    work = partial(grade, gold, prediction, policy)
    return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), work)


def grade_all(pairs: Iterable[tuple[object, str]], policy: str = "default") -> Iterator[Grade]:
    """The grades of (gold, prediction), in their order and several at a time. Raises ValueError as `grade` does."""
    return _threads(os.getpid()).map(lambda pair: grade(pair[0], pair[1], policy), pairs)


@lru_cache(maxsize=2)
def _threads(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4 * (os.cpu_count() or 1), thread_name_prefix="grade")


@lru_cache(maxsize=CACHE_SIZE)
def _grade_one(gold: str, prediction: str, policy: str) -> Grade:
    quick = _by_text(gold, prediction, policy)
    return quick or shared_workers(os.getpid()).compare(gold, prediction, policy)


def _by_text(gold: str, prediction: str, policy: str) -> Grade | None:
    """The verdict on pairs that need no process: too long, empty, the same text, two plain numbers, two words."""
    if policy not in PROFILES and (nested(gold) or nested(prediction)):
        same = gold.strip() == prediction.strip()
        return equal("the same text") if same else undecided(f"brackets are nested deeper than {MAX_NESTING}")
    if max(len(gold), len(prediction)) > MAX_LENGTH:
        return _too_long(gold.strip(), prediction.strip(), policy)
    if policy in PROFILES:
        return None
    if not gold.strip():
        return undecided("the gold answer is empty")
    if not prediction.strip():
        return different("the prediction is empty")
    exact = policy == "strict"
    first, second = read_number(gold), read_number(prediction)
    if first is None or second is None:
        gold, prediction = clean(gold), clean(prediction)
        if gold == prediction:
            return equal("the same text")
        first, second = read_number(gold), read_number(prediction)
    if first is not None and second is not None:
        reason = same_number(first, second, exact)
        return equal(reason) if reason else different("different numbers")
    plain = [re.fullmatch(r"[A-Za-z]{4,}", text) is not None for text in (gold, prediction)]
    if all(plain):
        return equal("the same word") if words(gold) == words(prediction) else different("different words")
    return None


def _too_long(gold: str, prediction: str, policy: str) -> Grade:
    """Long texts are compared as digits and by the one answer that they box or state at their end."""
    if gold == prediction:
        return equal("the same text")
    digits = [re.sub(r"^0+(?=\d)", "", text.lstrip("+")) for text in (gold, prediction)]
    if all(re.fullmatch(r"-?\d+", text) for text in digits):
        return equal("the same digits") if digits[0] == digits[1] else different("different digits")
    stated = [_stated(text) if len(text) > MAX_LENGTH else text for text in (gold, prediction)]
    if policy not in PROFILES and all(stated) and _grade_one(stated[0], stated[1], policy).equal:
        return equal("the answer that a long text states is equal")
    return undecided(f"an answer is longer than {MAX_LENGTH} characters")


_ANSWER_IS = re.compile(r"answer\s*(?:is|:)", re.IGNORECASE)


def _stated(text: str) -> str:
    """The only box of a long text, or what follows its only "answer is"; "" where there is none or several."""
    text = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)[-1]
    boxed = {re.sub(r"\s", "", box): box for box in boxes(text)}
    if len(boxed) == 1:
        (answer,) = boxed.values()
        return answer if len(answer) <= MAX_LENGTH else ""
    found = list(_ANSWER_IS.finditer(text))
    return text[found[0].start() :][:400] if len(found) == 1 and not boxed else ""


# --- command line ----------------------------------------------------------------------------------------------


def grade_pairs(lines: Sequence[str], policy: str) -> dict[str, Any]:
    """Counts of verdicts over JSON lines of `gold`, `prediction` and, optionally, `equal`; and every miss."""
    rows = [_pair(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    grades = list(grade_all(((row["gold"], row["prediction"]) for row in rows), policy))
    result: dict[str, Any] = dict.fromkeys([verdict.value for verdict in Verdict], 0)
    result |= {"pairs": len(rows), **Counter(one.verdict.value for one in grades)}
    labelled = [(row, one) for row, one in zip(rows, grades, strict=True) if isinstance(row.get("equal"), bool)]
    if labelled:
        outcomes = Counter(_outcome(row["equal"], one.equal) for row, one in labelled)
        result |= {"labelled": len(labelled), **{name: outcomes[name] for name in _OUTCOMES}}
        result["misses"] = [
            {**row, "verdict": one.verdict.value, "reason": one.reason}
            for row, one in labelled
            if one.equal != row["equal"]
        ]
    return result


_OUTCOMES = ("right", "wrongly accepted", "wrongly rejected", "undecided labelled")


def _outcome(label: bool, decision: bool | None) -> str:
    if decision is None:
        return "undecided labelled"
    return "right" if decision == label else "wrongly accepted" if decision else "wrongly rejected"


def _pair(number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        return {**row, "gold": row["gold"], "prediction": str(row["prediction"])}
    except (ValueError, KeyError, TypeError) as error:
        raise BadPairs(f"line {number}: expected a JSON object with gold and prediction ({error})") from error


def as_text(result: Mapping[str, Any]) -> str:
    """What `grade_pairs` found, for people."""
    lines = [f"{name:20}{count}" for name, count in result.items() if name != "misses"]
    rows = result.get("misses", [])
    lines += [f"  {row['verdict']:10} {row['gold']!r} | {row['prediction']!r}  ({row['reason']})" for row in rows]
    return "\n".join(lines)


class BadPairs(Exception):
    """Bad input: a message for people."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.grader", description="Grade pairs of answers.")
    parser.add_argument("--pairs", required=True, help="JSON lines with gold, prediction and, optionally, equal")
    parser.add_argument("--policy", default="default", choices=list(POLICIES))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args()
    try:
        with open(options.pairs, encoding="utf-8") as file:
            result = grade_pairs(file.readlines(), options.policy)
    except (OSError, BadPairs, UnicodeDecodeError) as error:
        print(f"{options.pairs}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, ensure_ascii=False) if options.json else as_text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

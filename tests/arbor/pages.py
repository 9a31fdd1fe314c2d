"""Tree files for the tests of the page: ordinary ones, and one whose every text wants to be more than a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVIL = (
    '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"><svg/onload=window.pwned=1>'
    "<!--<script> ${window.pwned=1} \u202egnirts desrever\u202c \u200b\u2066iso\u2069 \x00\x1b[31m \u2028 \ud800 "
    "😀 العربية"
)
MATHS = (
    r"$\href{javascript:window.pwned=1}{x}$ $\htmlStyle{color:red}{b}$ "
    r"$\includegraphics{http://example.invalid/x.png}$ $\rule{1000em}{1000em}$ \[\frac{1}{\sqrt{2}}\] "
    r"costs $5 and $7 $\def\x{\x\x}\x$ $x^2$ \(\unknown{\) $\begin{pmatrix}1&2\\3&4\end{pmatrix}$"
)


def node(text: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "text": text,
        "extra_info": "",
        "action": "",
        "action_input": "",
        "final_answer": "",
        "value": -100,
        **fields,
    }


def searched(text: str = "", *, q: float = 0.0, n: int = 1, **fields: Any) -> dict[str, Any]:
    return node(text, **{"value": q, "q_value": q, "prior": 0.5, "visit_count": n, **fields})


def step(thought: str, code: str, output: str) -> str:
    return (
        f"<step>\n<p>\n{thought}\n</p>\n<code>\n```python\n{code}\n```\n</code>\n<output>\n{output}\n</output>\n</step>"
    )


def hostile() -> dict[str, Any]:
    """A line of the published form whose texts are attacks."""
    return {
        "question": EVIL,
        "answer": "constructor",
        "type": EVIL,
        "level": "</option>",
        "weird": float("nan"),
        "__proto__": {"polluted": 1},
        "react": {
            "0": searched(extra_info=f"question: {EVIL}"),
            "0.0": searched(step(EVIL, f"print('''{EVIL}''')", EVIL), action="python_interpreter", action_input="x"),
            "0.1": searched(f"<step>\n<p>\n{MATHS}\n</p>\n</step>"),
            "0.2": searched("L" * 200_000, final_answer=EVIL, q=0.9, n=9),
            "0.3": searched("a", final_answer="constructor"),
            "0.4": searched("b", final_answer="__proto__"),
            "0.5": searched("", final_answer="Fail to generate parsable text for next step."),
        },
    }


def simulated() -> dict[str, Any]:
    """Three simulations with the value head, whose backups can be repeated from the file."""
    right = step("Add them.", "print(2+3)", "5")
    return {
        "question": "What is $2+3$?",
        "answer": "5",
        "react": {
            "0": searched(n=6, q=1.3 / 6, token_ids=[1, 2], terminal=False),
            "0.0": searched(right, n=3, q=0.8, born=1, token_ids=[3, 4], terminal=False),
            "0.1": searched("Guess.", n=2, q=-0.05, value=-0.5, born=1, token_ids=[5], terminal=False),
            "0.2": searched("!", n=1, q=-1.0, born=1, final_answer="Fail to generate parsable text for next step.",
                            terminal=True, reward=-1.0, token_ids=[6]),
            "0.0.0": searched("<step>\n<p>\nFinal Answer: 5\n</p>\n</step>", n=1, q=0.9, born=2, final_answer="5",
                              terminal=True, token_ids=[7]),
            "0.0.1": searched("<step>\n<p>\nFinal Answer: 6\n</p>\n</step>", n=1, q=0.7, born=2, final_answer="6",
                              terminal=True, token_ids=[8]),
            "0.1.0": searched("more", n=1, q=0.4, born=3, terminal=False, token_ids=[9]),
        },
        "prediction": {"final_answer": "5", "tag": "0.0.0", "run": 0, "votes": 1, "candidates": 2, "correct": True},
        "schema": "arbor/1",
        "meta": {
            "index": 0,
            "config": {
                "prompt_wrap": "react_sft",
                "result_unwrap": "react_sft",
                "step_delim": "\n",
                "need_value_func": True,
                "update_leaf_value": True,
            },
            "tokens_generated": 40,
            "wall_seconds": 0.5,
        },
    }  # fmt: skip


def plain(question: str, answer: str, predicted: str | None, *, tokens: int = 10, **fields: Any) -> dict[str, Any]:
    """A graded line with a tree of one answer, or of one failure."""
    leaf = node("so", final_answer=predicted or "Fail to sove the problem within limited steps.", value=0.5)
    return {
        "question": question,
        "answer": answer,
        "react": {"0": node(extra_info=f"question: {question}"), "0.0": leaf},
        "prediction": predicted and {"final_answer": predicted, "tag": "0.0", "correct": predicted == answer},
        "meta": {"tokens_generated": tokens, **({} if predicted else {"no_answer": "too deep"})},
        **fields,
    }


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path

"""How well-known families of chat models write, a line each: the prompts are those that they were trained on, where the
family has one. A key of the configuration wins over its preset."""

from __future__ import annotations

from collections.abc import Mapping

from mcts.markup.chat import Style

_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
_PROGRAMS = "Please integrate natural language reasoning with programs to solve the problem above, and put your final answer within \\boxed{}."  # noqa: E501
_SECTIONS = 'Solve this problem in sections, each under a heading such as "## Step 1: what it does". End with: The final answer is: $\\boxed{answer}$'  # noqa: E501
_CODE = "Write Python in a ```python block where it helps, end your turn there, and wait for what it prints."
_OF_A_DAY = {"date_string": "26 Jul 2024"}  # the template writes it; today's would make every day another run

PRESETS: Mapping[str, Style] = {
    "qwen2.5-math": Style(system=_BOXED, answer="box"),
    "qwen2.5-math-tir": Style(system=_PROGRAMS, cut="code", answer="box"),
    "llama-3": Style(user=_SECTIONS + "\n\n{question}", cut="heading", answer="marker", options=_OF_A_DAY),
    "llama-3-tool": Style(user="{question}\n\n" + _BOXED, cut="turn", observation="tool", answer="marker", options={**_OF_A_DAY, "builtin_tools": ["code_interpreter"]}),  # noqa: E501
    "r1-distill": Style(user="{question}\n\n" + _BOXED, answer="box", thinks="<think>", thinking_tokens=8192),
    "smollm2": Style(user="{question}\nThink step by step, then write: The answer is"),
    "gpt-oss": Style(user="{question}\n\n" + _BOXED + " " + _CODE, cut="turn", observation="user", answer="box"),
}  # fmt: skip
"""`chat_preset` of a configuration → its style."""

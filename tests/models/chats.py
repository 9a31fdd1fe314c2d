"""Tokenizers with the chat templates of well-known families: the layouts are the families', the vocabularies are small
and made here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = ["What is 2 + 3? Think step by step.\n\nThe answer is 5.\n", "```python\nprint(1)\n```\n```output\n1\n```\n"]


@dataclass(frozen=True)
class Family:
    """template: Jinja. special, added: control tokens, and tokens that are single without being special.
    metaspace: words begin with "▁", as in SentencePiece's vocabularies, else byte-level."""

    template: str
    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    added: tuple[str, ...] = ()
    metaspace: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def _chatml(default: str) -> str:
    turn = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    system = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" + default + "<|im_end|>\\n' }}{% endif %}"
    )
    end = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    return (system if default else "") + "{% for m in messages %}" + turn + "{% endfor %}" + end


_QWEN_TOOL = (
    "{% if messages[0]['role'] == 'system' %}{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{% else %}{{ '<|im_start|>system\\nPlease reason step by step, and put your final answer within \\\\boxed{}."
    "<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% elif not (m.role == 'system' and loop.first) %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{% if builtin_tools is defined %}{{ 'Environment: ipython\\n' }}{% endif %}"
    "{{ 'Cutting Knowledge Date: December 2023\\nToday Date: ' + (date_string or '1 Jan 2000') + '\\n\\n' + system }}"
    "{{ '<|eot_id|>' }}{% for m in messages %}{% if m.role in ('tool', 'ipython') %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (m.content | tojson) + '<|eot_id|>' }}{% else %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + (m.content | trim) + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' %}"
    "{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% elif m.role == 'tool' %}{{ '<｜tool▁outputs▁begin｜>' + m.content + '<｜tool▁outputs▁end｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>THINK' }}{% endif %}"
)
_INST = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns alternate, user first') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
_HARMONY = (
    "{{ '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\\n\\nReasoning: ' }}"
    "{{ reasoning_effort | default('medium') }}{{ '<|end|>' }}"
    "{% if messages[0].role == 'system' %}{{ '<|start|>developer<|message|># Instructions\\n\\n' }}"
    "{{ messages[0].content + '<|end|>' }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'tool' %}"
    "{{ '<|start|>python to=assistant<|channel|>commentary<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_R1_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
_R1_TOKENS += ("<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>")
_LLAMA_TOKENS = ("<|begin_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>", "<|end_header_id|>")

FAMILIES = {
    "qwen2.5-math": Family(_QWEN_TOOL, _CHATML, "<|im_end|>", added=("<tool_response>", "</tool_response>")),
    "smollm2": Family(
        _chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), _CHATML, "<|im_end|>"
    ),
    "llama-3": Family(
        _LLAMA, (*_LLAMA_TOKENS, "<|python_tag|>"), "<|eot_id|>", bos="<|begin_of_text|>",
        options={"date_string": "26 Jul 2024"},
    ),
    "r1-distill": Family(
        _R1.replace("THINK", ""), _R1_TOKENS, "<｜end▁of▁sentence｜>", bos="<｜begin▁of▁sentence｜>",
        added=("<think>", "</think>"),
    ),
    "r1-distill, opened": Family(
        _R1.replace("THINK", "<think>\\n"), _R1_TOKENS, "<｜end▁of▁sentence｜>", bos="<｜begin▁of▁sentence｜>",
        added=("<think>", "</think>"),
    ),
    "gpt-oss": Family(
        _HARMONY, ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>"), "<|return|>",
        options={"reasoning_effort": "high"},
    ),
    "inst": Family(_INST, ("<s>", "</s>"), "</s>", bos="<s>", metaspace=True),
}  # fmt: skip


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family. Those with a BOS add it to every text, so that a template's own would be doubled."""
    family = FAMILIES[name]
    tokenizer = Tokenizer(models.BPE(byte_fallback=family.metaspace, unk_token="<unk>" if family.metaspace else None))
    if family.metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
        alphabet = sorted(set("".join(map(chr, range(32, 127))) + "\n▁é"))
        special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet, special = pre_tokenizers.ByteLevel.alphabet(), []
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in family.special])
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in family.added])
    if family.bos is not None:
        from tokenizers.processors import TemplateProcessing

        ids = [(family.bos, tokenizer.token_to_id(family.bos))]
        tokenizer.post_processor = TemplateProcessing(single=f"{family.bos} $A", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=family.eos, bos_token=family.bos, chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip

"""The tokenizer of the embedded model: byte-level BPE (no text is lost), single digits, markup as single tokens."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from models.tiny.chains import LABELS

END = "<|end|>"  # pads and ends; no step contains it
GROUPS = (  # what always stands together in the markup and in the code of a step, so that steps are short
    "<question> ",
    " </question>\n",
    "<step>\n<p>\n",
    "\n</p>\n<code>\n```python\n",
    "\n```\n</code>",
    "\n<output>\n",
    "\n</output>\n</step>\n",
    "\n</p>\n<p>\nFinal Answer: ",
    "\n</p>\n</step>",
    "f=lambda x:",
    "print(f(",
    "\nprint((s-",
    "print(s)",
    *(f"{label} " for label in LABELS),
)


def build_tokenizer(texts: Iterable[str], vocabulary: int = 768) -> PreTrainedTokenizerFast:
    """A tokenizer trained on `texts`; decode(encode(text)) == text for every string."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.add_tokens([AddedToken(group, normalized=False) for group in GROUPS])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1 - len(GROUPS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )

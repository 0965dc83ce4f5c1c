"""The word-level tokenizer of the tiny models: the suite's words and a kind's special tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tempeval.mini.questions import KINDS, SYSTEM

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = "<unk>"
PUNCTUATION = tuple(".,:;?!'\"()-/")


def words() -> list[str]:
    """Return the closed vocabulary: the suite's words, letters, digits, yes and no."""
    texts = [SYSTEM, "system user assistant yes no option choices answer"]
    texts += [kind.prompt for kind in KINDS]
    found = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    found |= set("abcdefghijklmnopqrstuvwxyz0123456789")
    return [*PUNCTUATION, *sorted(found)]


def word_tokenizer(special: Sequence[str], end: str, pad: str) -> PreTrainedTokenizerFast:
    """Return a lower-casing tokenizer of whole words.

    Args:
        special: special tokens, which come first in the vocabulary.
        end: the one that ends a turn.
        pad: the one that pads.
    """
    vocabulary = {token: index for index, token in enumerate([*special, UNKNOWN, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        eos_token=end,
        pad_token=pad,
        additional_special_tokens=list(special),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )

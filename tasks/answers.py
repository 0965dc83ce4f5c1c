"""Match a model's free text against a closed list of choices. Parsers never guess."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def normalise(text: str) -> str:
    """Return lower-case words separated by single spaces, without punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def match_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the one choice that a text names, as whole words.

    Args:
        text: what the model wrote.
        choices: the accepted answers, each of one or more words.

    Returns:
        The choice as listed, or None if the text names none or several of them.
    """
    padded = f" {normalise(text)} "
    found = [choice for choice in choices if (w := normalise(choice)) and f" {w} " in padded]
    return found[0] if len(found) == 1 else None

"""From a free text to one label of a closed set, by equality. The rule is ours, no official one."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Status = Literal["parsed", "ambiguous", "unparsed", "empty"]
#: Opening and closing quotation marks.
_QUOTES = {'""', "''", "“”", "\u2018\u2019", "„“", "«»", "``"}
#: Other spellings of double quotation marks, apostrophes and hyphens.
_SPELLINGS = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d", '"'),
        **dict.fromkeys("\u2018\u2019\u201b\u02bc`\u00b4\u2032", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    }
)


@dataclass(frozen=True)
class Matched:
    """What a text means.

    Attributes:
        index: of the label, None if the text is not one label.
        status: `parsed`; `empty`; `unparsed` where no label is equal; `ambiguous` where several
            labels are the same text to the rule.
    """

    index: int | None
    status: Status


def fold(text: str) -> str:
    """Return the form in which a text and a label are compared.

    Blanks around are stripped, one pair of outer quotation marks and one final full stop are taken
    off (whichever is outside goes first), blanks inside are collapsed, and case is ignored.
    """
    text, stop, quotes = text.strip(), True, True
    while True:
        if stop and text.endswith("."):
            text, stop = text[:-1].rstrip(), False
        elif quotes and len(text) > 1 and text[0] + text[-1] in _QUOTES:
            text, quotes = text[1:-1].strip(), False
        else:
            return " ".join(text.split()).lower()


def match_label(text: str, labels: Sequence[str]) -> Matched:
    """Return which label a text is, after `fold` of both and without quotes in pairs inside.

    Nothing else matches, but for the spelling of apostrophes, hyphens and full-width signs.

    Neither a label within a sentence, nor a part of one, nor underscores for blanks are guessed.

    Args:
        text: what the model wrote.
        labels: the label set.
    """
    wanted = _key(text)
    if not wanted:
        return Matched(None, "empty")
    found = _folded(tuple(labels)).get(wanted, [])
    if len(found) == 1:
        return Matched(found[0], "parsed")
    return Matched(None, "ambiguous" if found else "unparsed")


def _key(text: str) -> str:
    """Return a folded text in one spelling, without the double quotation marks inside it."""
    folded = fold(unicodedata.normalize("NFKC", text)).translate(_SPELLINGS)
    around = folded[:1] == folded[-1:] == '"' and folded.count('"') == 2
    if around or folded.count('"') % 2:
        return folded
    return " ".join(folded.replace('"', "").split())


@lru_cache(maxsize=16)
def _folded(labels: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the indices of the labels by what they are folded to."""
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(_key(label), []).append(index)
    return found

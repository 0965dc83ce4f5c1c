"""WUPS of NExT-QA's open-ended answers: how near the words of two answers are in WordNet.

Source: facts of doc-doc/NExT-OE eval_oe.py, metrics.py and stopwords.txt @ a83f8f5, with nltk 3.3,
which its requirements name, and with which it gives the numbers in its README.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: `pinned`: nltk 3.3, where a verb has a root in common with all it is compared with, and an
#: adjective with nothing. `modern`: later ones (3.8.1), where all but two nouns have one.
Roots = Literal["pinned", "modern"]
#: Types of question whose answers have to be equal.
EXACT = ("DB", "DC")
_STOPWORDS = "data/nextqa_stopwords.txt"


class Words(Protocol):
    """What is known about words."""

    def lemmas(self, text: str) -> Sequence[str]:
        """Return the lemma of each token of a text."""

    def tokens(self, text: str) -> Sequence[str]:
        """Return the tokens of a text."""

    def similarity(self, word: str, other: str, roots: Roots) -> float:
        """Return the Wu-Palmer similarity of two words, 0 to 1; 0 where there is none."""


@cache
def stopwords() -> frozenset[str]:
    """Return the official stop words."""
    return frozenset(files("tempeval.metrics").joinpath(_STOPWORDS).read_text("utf-8").split())


def clean(text: str, words: Words) -> str:
    """Return the lemmas of a text without stop words, joined by blanks."""
    return " ".join(lemma for lemma in words.lemmas(text) if lemma not in stopwords())


def answer_score(
    kind: str,
    prediction: str,
    references: Iterable[str],
    threshold: float,
    words: Words,
    *,
    strict: bool = False,
    roots: Roots = "pinned",
) -> float:
    """Return how near an answer is to the nearest of its references.

    Args:
        kind: type of the question; those in `EXACT` are right or wrong.
        prediction: after `clean`.
        references: after `clean`.
        threshold: a similarity below it counts a tenth: 0 or 0.9, for WUPS@0 and WUPS@0.9.
        words: where similarities come from.
        strict: see `wups`.
        roots: which words have a common root.

    Returns:
        0 to 1.
    """
    if kind in EXACT:
        return float(prediction in list(references))
    return max(
        wups(prediction, reference, threshold, words, strict=strict, roots=roots)
        for reference in references
    )


def wups(
    prediction: str,
    reference: str,
    threshold: float,
    words: Words,
    *,
    strict: bool = False,
    roots: Roots = "pinned",
) -> float:
    """Return the smaller one of both directions' products of best similarities.

    As official, a word that is like no word of the other answer is skipped, so it costs nothing.

    Args:
        prediction: after `clean`.
        reference: after `clean`.
        threshold: see `answer_score`.
        words: where similarities come from.
        strict: a word that is like no other makes the product 0 (ours).
        roots: which words have a common root.

    Returns:
        0 to 1; 0 where no word is left on a side, or no word is like any other.
    """

    def similar(word: str, other: str) -> float:
        if word == other:
            return 1.0
        found = words.similarity(word, other, roots)
        return 0.1 * found if found < threshold else found

    def product(these: Sequence[str], those: Sequence[str]) -> float:
        found = [max((similar(word, other) for other in those), default=0.0) for word in these]
        known = [best for best in found if best > 0]
        if not known or (strict and len(known) < len(found)):
            return 0.0
        total = 1.0
        for best in known:
            total *= best
        return total

    said, meant = words.tokens(prediction), words.tokens(reference)
    return min(product(said, meant), product(meant, said))

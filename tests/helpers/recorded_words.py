"""What WordNet and the tagger say about the words of the golden answers, without their data.

`python tests/helpers/recorded_words.py` records it again where the data are installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.metrics.wups_words import NltkWords
from tempeval.run.rescore import Scores, read_predictions, rescore
from tempeval.tasks import nextqa_oe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.metrics.wups import Roots

GOLDEN = Path(__file__).parents[1] / "reference" / "metrics" / "nextqa_oe"
RECORDED = GOLDEN / "recorded.json"


class RecordedWords:
    """Tables of lemmas and similarities; a text or a pair that is not in them is a KeyError.

    Args:
        real: what to ask, and to write down, where something is not in the tables.
    """

    def __init__(self, tables: dict[str, Any], real: NltkWords | None = None) -> None:
        self.tables, self.real = tables, real
        self.tokens = NltkWords().tokens  # needs no data for one sentence

    def lemmas(self, text: str) -> Sequence[str]:
        known = self.tables["lemmas"]
        if self.real is not None and text not in known:
            known[text] = " ".join(self.real.lemmas(text))
        return known[text].split()  # type: ignore[no-any-return]

    def similarity(self, word: str, other: str, roots: Roots) -> float:
        known, key = self.tables[roots], f"{word} {other}"
        if self.real is not None and key not in known:
            known[key] = self.real.similarity(word, other, roots)
        return known[key]  # type: ignore[no-any-return]


def golden_scores() -> Scores:
    """Score the golden answers, as `tempeval score` does."""
    answers = read_predictions(GOLDEN / "predictions.json")
    return rescore("tempeval_nextqa_oe", answers, GOLDEN / "annotations")


def record() -> dict[str, Any]:
    """Return the tables that the golden answers need, from the real data."""
    words = RecordedWords({"lemmas": {}, "pinned": {}, "modern": {}}, NltkWords())
    real, nextqa_oe.nltk_words = nextqa_oe.nltk_words, lambda: words
    try:
        found = golden_scores()
    finally:
        nextqa_oe.nltk_words = real
    if found.errors:
        raise SystemExit(next(iter(found.errors.values())))
    return {name: dict(sorted(table.items())) for name, table in words.tables.items()}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(record(), indent=1, ensure_ascii=False) + "\n", "utf-8")

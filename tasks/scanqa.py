"""ScanQA: exact match, and the COCO caption scores over the whole split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.metrics.answer_cleaning import clean_answer
from tempeval.metrics.captions import METRICS, caption_score
from tempeval.metrics.unavailable import or_none
from tempeval.tasks.answers import final_answer
from tempeval.tasks.failed import scorer
from tempeval.tasks.open_ended import process_cleaned, unanswered_cleaned

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
Item = dict[str, Any]


def _items(doc: Doc, said: str | None) -> dict[str, Any]:
    item = {
        "prediction": said,
        "references": [clean_answer(answer) for answer in doc["answers"]],
    }
    return dict.fromkeys(METRICS, item)


@scorer(lambda doc: {**unanswered_cleaned(doc), **_items(doc, None)})
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score one text, and keep what the scores of the corpus need.

    Returns:
        As `open_ended.process_cleaned`, and an item for each of the caption scores, without a
        prediction where the question failed.
    """
    said = clean_answer(final_answer(results[0]))
    return {**process_cleaned(doc, results), **_items(doc, said)}


def _score(metric: str, items: Sequence[Item]) -> float:
    pairs = [(item["prediction"], tuple(item["references"])) for item in items]
    return caption_score(metric, pairs)


@or_none
def bleu_1(items: Sequence[Item]) -> float:
    """Return BLEU-1 of the corpus, 0 to 1."""
    return _score("bleu_1", items)


@or_none
def bleu_2(items: Sequence[Item]) -> float:
    """Return BLEU-2 of the corpus, 0 to 1."""
    return _score("bleu_2", items)


@or_none
def bleu_3(items: Sequence[Item]) -> float:
    """Return BLEU-3 of the corpus, 0 to 1."""
    return _score("bleu_3", items)


@or_none
def bleu_4(items: Sequence[Item]) -> float:
    """Return BLEU-4 of the corpus, 0 to 1."""
    return _score("bleu_4", items)


@or_none
def meteor(items: Sequence[Item]) -> float:
    """Return METEOR of the corpus, 0 to 1."""
    return _score("meteor", items)


@or_none
def rouge_l(items: Sequence[Item]) -> float:
    """Return ROUGE-L of the corpus, 0 to 1."""
    return _score("rouge_l", items)


@or_none
def cider(items: Sequence[Item]) -> float:
    """Return CIDEr of the corpus, 0 to 10."""
    return _score("cider", items)

"""Breakfast's second reading of a label: three of the ten are also known by an English name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.breakfast import ALIASES
from tempeval.metrics.label_match import match_label
from tempeval.tasks.answers import final_answer
from tempeval.tasks.failed import scorer
from tempeval.tasks.label_classification import labels_of, process_list, unanswered_list

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]


@scorer(lambda doc: {**unanswered_list(doc), "top1_aliases": 0.0})
def process_list_with_aliases(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text as `process_list` does, and once more with `ALIASES` accepted.

    Returns:
        Its metrics, and `top1_aliases`, in which "fried egg", "scrambled eggs" and "fruit salad"
        also count.
    """
    labels = labels_of(doc)
    found = process_list(doc, results)
    said = final_answer(results[0])
    index = match_label(said, labels).index
    if index is None:
        index = match_label(said, [ALIASES.get(label, label) for label in labels]).index
    return {**found, "top1_aliases": float(index == doc["answer_index"])}

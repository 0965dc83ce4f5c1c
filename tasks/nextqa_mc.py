"""NExT-QA, multiple choice: accuracy by group of question types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.nextqa import GROUPS
from tempeval.tasks import multiple_choice
from tempeval.tasks.means import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_PARTS = ("acc_c", "acc_t", "acc_d")


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option.

    Returns:
        As `multiple_choice.scored`, with `acc_c`, `acc_t` or `acc_d` (causal, temporal,
        descriptive) by the type of the question.
    """
    found = multiple_choice.process_results(doc, results)
    return {**found, **parts(_PARTS, {f"acc_{GROUPS[doc['category']]}": found["score"]})}

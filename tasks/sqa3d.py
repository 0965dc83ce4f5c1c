"""SQA3D: exact match by the first word of the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.sqa3d import OTHER, TYPES
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import parts
from tempeval.tasks.open_ended import process_cleaned, unanswered_cleaned

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_PARTS = tuple(
    f"{metric}_{kind.lower()}" for metric in ("em", "em_refined") for kind in (*TYPES, OTHER)
)


def _by_type(doc: Doc, found: dict[str, Any]) -> dict[str, Any]:
    kind = doc["category"].lower()
    scores = {f"em_{kind}": found["score"], f"em_refined_{kind}": found["em_refined"]}
    return {**found, **parts(_PARTS, scores)}


@scorer(lambda doc: _by_type(doc, unanswered_cleaned(doc)))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score one text.

    Returns:
        As `open_ended.process_cleaned`, with `em_<type>` and `em_refined_<type>`, the type being
        what, is, how, can, which or other.
    """
    return _by_type(doc, process_cleaned(doc, results))

"""AVQA: accuracy by question type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_KINDS = ("which", "come_from", "happening", "where", "why", "before_next", "when", "used_for")
_PARTS = tuple(f"acc_{kind}" for kind in _KINDS)


def _by_kind(doc: Doc, found: dict[str, Any]) -> dict[str, Any]:
    kind = re.sub(r"\W+", "_", doc["category"].strip().lower())
    return {**found, **parts(_PARTS, {f"acc_{kind}": found["score"]})}


@scorer(lambda doc: _by_kind(doc, multiple_choice.unanswered(doc)))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option.

    Returns:
        As `multiple_choice.scored`, with `acc_<type>` by the type of the question.
    """
    return _by_kind(doc, multiple_choice.process_results(doc, results))

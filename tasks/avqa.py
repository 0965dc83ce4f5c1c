"""AVQA: accuracy by question type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.means import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_KINDS = ("which", "come_from", "happening", "where", "why", "before_next", "when", "used_for")
_PARTS = tuple(f"acc_{kind}" for kind in _KINDS)


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option.

    Returns:
        As `multiple_choice.scored`, with `acc_<type>` by the type of the question.
    """
    found = multiple_choice.process_results(doc, results)
    kind = re.sub(r"\W+", "_", doc["category"].strip().lower())
    return {**found, **parts(_PARTS, {f"acc_{kind}": found["score"]})}

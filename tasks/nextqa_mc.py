"""NExT-QA, multiple choice: accuracy by group and type of question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.nextqa import PARTS, parts_of
from tempeval.tasks import multiple_choice
from tempeval.tasks.answers import Index
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import parts
from tempeval.tasks.options import parse_option

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
#: DB is asked in the open-ended version only.
_PARTS = tuple(f"acc_{part}" for part in PARTS if part != "db")


def _by_part(doc: Doc, found: dict[str, Any]) -> dict[str, Any]:
    own = {f"acc_{part}": found["score"] for part in parts_of(doc["category"])}
    return {**found, **parts(_PARTS, own)}


@scorer(lambda doc: _by_part(doc, multiple_choice.unanswered(doc)))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option; a number of a result file is an index from 0.

    Returns:
        As `multiple_choice.scored`, with `acc_c`, `acc_t` or `acc_d` (causal, temporal,
        descriptive) and `acc_<type>` by the type of the question.
    """
    said = results[0]
    found = parse_option(said, doc["choices"], digits=isinstance(said, Index))
    return _by_part(doc, multiple_choice.scored(doc, found))

"""AVQA: the prompt of PAVE's evaluation, accuracy by question type.

Source: the prompt is that of dragonlzm/PAVE eval_pave_avqa.py @ 4e38164, subtitles included though
there are none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import parts
from tempeval.tasks.multiple_choice import lettered
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_KINDS = ("which", "come_from", "happening", "where", "why", "before_next", "when", "used_for")
_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video and the "
    "subtitles. Respond with only the letter (A, B, C, or D) of the correct option."
)
_ENDING = "Answer with the option's letter from the given choices directly."
_PARTS = tuple(f"acc_{kind}" for kind in _KINDS)


def doc_to_text(doc: Doc) -> str:
    """Return the prompt of PAVE's evaluation, whose options have no blank after the full stop."""
    options = lettered(doc["choices"], "{}.{}")
    return f"{_INSTRUCTION}\n{doc['question']}\n{options}\n{_ENDING}"


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with its options."""
    return ask(clip(doc), doc_to_text(doc))


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

"""Questions answered in free words: one prompt, and what every sample of them carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.document import identity
from tempeval.metrics.answer_cleaning import clean_answer
from tempeval.metrics.exact_match import exact_match, refined_match, refined_match_strict
from tempeval.tasks.answers import final_answer
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import scorer
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]


def doc_to_text(doc: Doc) -> str:
    """Return the question alone, as PAVE asks it: no instruction after it."""
    return str(doc["question"])


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question."""
    return ask(clip(doc), doc_to_text(doc))


def doc_to_target(doc: Doc) -> str:
    """Return the first reference."""
    return str(doc["answers"][0])


def sample(doc: Doc, text: str, score: float | None) -> dict[str, Any]:
    """Return what a sample carries beside its metrics; an empty answer is a parse failure.

    Args:
        doc: the document.
        text: what was written, as it is compared.
        score: the main score, 0 to 1; None where it cannot be computed.
    """
    empty = not text.strip()
    return {
        **identity(doc),
        "score": score,
        "parsed": None if empty else text,
        "parse_status": "empty" if empty else "parsed",
        "parse_failure": float(empty),
    }


def unanswered_cleaned(doc: Doc) -> dict[str, Any]:
    """Return the metrics of a question that failed."""
    return _cleaned(doc, "", em=False, refined=False, strict=False)


def _cleaned(doc: Doc, said: str, *, em: bool, refined: bool, strict: bool) -> dict[str, Any]:
    score = float(em)
    return {
        **sample(doc, said, score),
        "em": {"score": score, "cluster": doc["cluster"]},
        "em_refined": float(refined),
        "em_refined_strict": float(strict),
    }


@scorer(unanswered_cleaned)
def process_cleaned(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text against references, both cleaned as LEO's evaluator does.

    Returns:
        `em` (the main score, with its cluster), `em_refined` (official: an empty answer and `no` in
        `piano` are hits), `em_refined_strict` (an empty one is wrong), and what `sample` gives.
    """
    final = final_answer(results[0])
    said = clean_answer(final)
    known = [clean_answer(answer) for answer in doc["answers"]]
    return _cleaned(
        doc,
        said,
        em=exact_match(said, known),
        # An empty answer is a hit as official; thinking that came to no answer is none.
        refined=refined_match(said, known) and bool(final or not results[0].strip()),
        strict=refined_match_strict(said, known),
    )

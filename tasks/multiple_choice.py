"""Multiple choice: one prompt, one careful reader of answers, one way to score. Nothing is guessed.

The reader's rule is ours; where a benchmark has an official one, its own module has that beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.document import identity
from tempeval.tasks.answers import NOTHING, Parsed
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import scorer
from tempeval.tasks.options import LETTERS, parse_option
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The reader has a module of its own; this is where its users look for it.
__all__ = [
    "LETTERS",
    "Parsed",
    "doc_to_messages",
    "doc_to_target",
    "doc_to_text",
    "lettered",
    "parse_option",
    "process_results",
    "scored",
    "unanswered",
]
Doc = dict[str, Any]
_INSTRUCTION = "Answer with the option's letter from the given choices directly."


def lettered(choices: Iterable[str], form: str = "{}. {}") -> str:
    """Return options one a line, each with its letter."""
    return "\n".join(form.format(*pair) for pair in zip(LETTERS, choices, strict=False))


def doc_to_text(doc: Doc) -> str:
    """Return question, options and the instruction, worded as lmms-eval words it."""
    return f"{doc['question']}\n{lettered(doc['choices'])}\n{_INSTRUCTION}"


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with its options."""
    return ask(clip(doc), doc_to_text(doc))


def doc_to_target(doc: Doc) -> str:
    """Return the letter of the right option, empty where it is not public."""
    return LETTERS[doc["answer_index"]] if doc["answer_index"] >= 0 else ""


def scored(doc: Doc, parsed: Parsed) -> dict[str, Any]:
    """Return the metrics of one sample, and what joins it with those of other runs.

    Returns:
        `acc` (with its cluster), `chance`, `parse_failure`, `score`, `parsed` (a letter),
        `parse_status`, and the identity of the document.
    """
    score = float(parsed.index is not None and parsed.index == doc["answer_index"])
    return {
        **identity(doc),
        "score": score,
        "parsed": None if parsed.index is None else LETTERS[parsed.index],
        "parse_status": parsed.status,
        "acc": {"score": score, "cluster": doc["cluster"]},
        "chance": 1.0 / len(doc["choices"]),
        "parse_failure": float(parsed.index is None),
    }


def unanswered(doc: Doc) -> dict[str, Any]:
    """Return the metrics of a question that failed."""
    return scored(doc, NOTHING)


@scorer(unanswered)
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option."""
    return scored(doc, parse_option(results[0], doc["choices"]))

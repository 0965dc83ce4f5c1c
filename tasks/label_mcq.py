"""Helpers of the label sets' `_mcq` protocol: a few options with seeded distractors."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.seeded_options import seeded_options
from tempeval.tasks.answers import NOTHING, Parsed
from tempeval.tasks.documents import as_dataset, clip, docs_of
from tempeval.tasks.failed import scorer
from tempeval.tasks.label_classification import readable_labels, scored
from tempeval.tasks.options import LETTERS, parse_option
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

Doc = dict[str, Any]


def load_mcq(rows: Dataset) -> Dataset:
    """Return the documents with options: `options` of them, drawn with `seed`.

    Args:
        rows: the one row of `source.jsonl`, with `benchmark`, `split`, `options` and `seed`.

    Raises:
        InvalidSetting: if there are fewer labels than options.
    """
    row = dict(rows[0])
    options, seed = int(row["options"]), int(row["seed"])
    return as_dataset([_with_options(doc, options, seed) for doc in docs_of(rows)])


def _with_options(doc: Doc, options: int, seed: int) -> Doc:
    """Return a document with options; `answer_index` is the place of the right one among them."""
    labels = readable_labels(doc)
    label = doc["answer_index"]
    shown, place = seeded_options(doc["sample_id"], label, len(labels), options, seed)
    # The options are content too: others make another question.
    content = f"{doc['content_hash']} {shown}"
    return {
        **doc,
        "choices": [labels[index] for index in shown],
        "option_labels": shown,
        "answer_index": place,
        "content_hash": hashlib.sha256(content.encode()).hexdigest()[:16],
    }


def mcq_text(doc: Doc) -> str:
    """Return the question of the `_mcq` variant: lettered options, answered by letter."""
    options = "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(LETTERS, doc["choices"], strict=False)
    )
    return f"{doc['question']}\n{options}\nAnswer with the letter of one option only."


def mcq_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with its options."""
    return ask(clip(doc), mcq_text(doc))


def letter_target(doc: Doc) -> str:
    """Return the letter of the right option."""
    return LETTERS[doc["answer_index"]]


def _scored(doc: Doc, parsed: Parsed) -> dict[str, Any]:
    shown = doc["option_labels"]
    return scored(
        doc,
        gold=shown[doc["answer_index"]],
        predicted=None if parsed.index is None else shown[parsed.index],
        options=len(shown),
        status=parsed.status,
    )


@scorer(lambda doc: _scored(doc, NOTHING))
def process_mcq(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one of the options."""
    return _scored(doc, parse_option(results[0], doc["choices"]))

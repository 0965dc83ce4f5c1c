"""Helpers of the label sets (Jester, Something-Something, Kinetics, Breakfast): two protocols.

`_choice` scores the log-likelihood of every label, `_list` names all labels in the prompt and reads
the answer. The third, `_mcq`, is in `tempeval.tasks.label_mcq`; all give the same metrics.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.breakfast import ALIASES, SPLITS
from tempeval.benchmarks.document import identity
from tempeval.benchmarks.sources import label_set
from tempeval.metrics import classification
from tempeval.metrics.label_match import match_label
from tempeval.tasks.answers import final_answer
from tempeval.tasks.choice_task import choose
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import STATUS, scorer
from tempeval.tasks.means import parts
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
Item = dict[str, Any]
#: Readable forms of labels that are no English words, by benchmark.
READABLE = {"breakfast": ALIASES}


def labels_of(doc: Doc) -> tuple[str, ...]:
    """Return the label set of a document's benchmark, in official order."""
    return label_set(doc["benchmark"], doc["root"])


@lru_cache(maxsize=16)
def _readable(benchmark: str, root: str) -> tuple[str, ...]:
    names = READABLE.get(benchmark, {})
    return tuple(names.get(label, label) for label in label_set(benchmark, root))


def readable_labels(doc: Doc) -> tuple[str, ...]:
    """Return the label set as the `_choice` and `_mcq` variants word it."""
    return _readable(doc["benchmark"], doc["root"])


def doc_to_choice(doc: Doc) -> list[str]:
    """Return every label, as worded for the model."""
    return list(readable_labels(doc))


def choice_text(doc: Doc) -> str:
    """Return the question of the `_choice` variant: the labels are not in it."""
    return f"{doc['question']} Answer with the {doc['noun']} only."


@lru_cache(maxsize=16)
def _listed(benchmark: str, root: str) -> str:
    return "\n".join(label_set(benchmark, root))


def list_text(doc: Doc) -> str:
    """Return the question of the `_list` variant: every label, spelled as it is compared."""
    return (
        f"{doc['question']} These are the possible answers:\n"
        f"{_listed(doc['benchmark'], doc['root'])}\n"
        "Answer with exactly one of them, copied as it is written."
    )


def list_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with all labels."""
    return ask(clip(doc), list_text(doc))


def label_target(doc: Doc) -> str:
    """Return the right label, as official."""
    return str(doc["answers"][0])


def _chosen(doc: Doc, by_mean: str | None, by_sum: str | None, *, greedy: bool) -> dict[str, Any]:
    choices = doc_to_choice(doc)
    gold = doc["answer_index"]
    predicted = None if by_mean is None else choices.index(by_mean)
    right_by_sum = float(by_sum == choices[gold])
    status = "empty" if predicted is None else "parsed"
    return {
        **scored(doc, gold=gold, predicted=predicted, options=len(choices), status=status),
        "parse_failure": 0.0,  # nothing is parsed
        "top1_sum": right_by_sum,
        "accuracy_sum": right_by_sum,
        "is_greedy": greedy,
    }


@scorer(lambda doc: _chosen(doc, None, None, greedy=False))
def process_choices(doc: Doc, results: Sequence[tuple[Any, bool]]) -> dict[str, Any]:
    """Score the log-likelihoods of all labels.

    Returns:
        The metrics of `scored` by mean log-likelihood per token, `top1_sum` by its sum (also as
        `accuracy_sum`, the name that the leaderboard reads), and `is_greedy`.
    """
    by_mean, by_sum, greedy = choose(results, doc_to_choice(doc))
    return _chosen(doc, by_mean, by_sum, greedy=greedy)


def unanswered_list(doc: Doc) -> dict[str, Any]:
    """Return the metrics of a question of the `_list` variant that failed."""
    options = len(labels_of(doc))
    return scored(doc, gold=doc["answer_index"], predicted=None, options=options, status=STATUS)


@scorer(unanswered_list)
def process_list(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should be one of all labels."""
    labels = labels_of(doc)
    matched = match_label(final_answer(results[0]), labels)
    return scored(
        doc,
        gold=doc["answer_index"],
        predicted=matched.index,
        options=len(labels),
        status=matched.status,
    )


def scored(
    doc: Doc, *, gold: int, predicted: int | None, options: int, status: str
) -> dict[str, Any]:
    """Return the metrics of one sample, and what joins it with those of other runs.

    Args:
        doc: the document.
        gold: index of the right label.
        predicted: index of the answered label, or None.
        options: how many answers there were to choose from.
        status: `parsed`, `ambiguous`, `unparsed`, `empty`, or `failed` without an answer.

    Returns:
        `top1`, `macro_f1`, `macro_f1_present`, `chance` and `parse_failure`; of Breakfast, whose
        category is the split, also `top1_<split>`.
    """
    labels = labels_of(doc)
    score = float(predicted == gold)
    item = {"gold": gold, "predicted": predicted, "classes": len(labels)}
    found = {
        **identity(doc),
        "score": score,
        "parsed": None if predicted is None else labels[predicted],
        "parse_status": status,
        "top1": {"score": score, "cluster": doc["cluster"]},
        "macro_f1": item,
        "macro_f1_present": item,
        "chance": 1.0 / options,
        "parse_failure": float(predicted is None),
    }
    if doc["benchmark"] != "breakfast":
        return found
    return {
        **found,
        **parts((f"top1_{split}" for split in SPLITS), {f"top1_{doc['category']}": score}),
    }


def macro_f1(items: Sequence[Item]) -> float:
    """Return the mean F1 score over all classes of the label set, 0 to 1."""
    gold, predicted = _columns(items)
    return classification.macro_f1(gold, predicted, items[0]["classes"])


def macro_f1_present(items: Sequence[Item]) -> float:
    """Return the mean F1 score over the classes that samples have, 0 to 1."""
    return classification.macro_f1_present(*_columns(items))


def _columns(items: Sequence[Item]) -> tuple[list[int], list[int | None]]:
    return [item["gold"] for item in items], [item["predicted"] for item in items]

"""Scores of single-label classification with answers that may be missing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def top1(gold: Sequence[int], predicted: Sequence[int | None]) -> float:
    """Return the share of right answers among all samples.

    Args:
        gold: class of every sample.
        predicted: answered class of every sample; None, for an answer that names no class, is
            wrong.

    Returns:
        0 to 1.

    Raises:
        ValueError: if there is no sample, or the lengths differ.
    """
    _check(gold, predicted)
    return sum(a == b for a, b in zip(gold, predicted, strict=True)) / len(gold)


def f1_by_class(
    gold: Sequence[int], predicted: Sequence[int | None], classes: Sequence[int]
) -> list[float]:
    """Return the F1 score of every class: 2 TP / (2 TP + FP + FN).

    A class that is neither in the answers nor among the right ones scores 0, as in scikit-learn's
    `f1_score(zero_division=0)`. None is a missed class, but no wrong one.

    Args:
        gold: class of every sample.
        predicted: answered class of every sample, or None.
        classes: to score.

    Returns:
        0 to 1 for every one of `classes`, in their order.

    Raises:
        ValueError: if there is no sample, or the lengths differ.
    """
    _check(gold, predicted)
    pairs = list(zip(gold, predicted, strict=True))
    hits = Counter(a for a, b in pairs if a == b)
    expected = Counter(gold)
    answered = Counter(b for _, b in pairs if b is not None)
    sizes = [expected[c] + answered[c] for c in classes]
    return [2 * hits[c] / size if size else 0.0 for c, size in zip(classes, sizes, strict=True)]


def macro_f1(gold: Sequence[int], predicted: Sequence[int | None], classes: int) -> float:
    """Return the mean F1 score over all classes, those without a sample included.

    Args:
        gold: class of every sample, from 0.
        predicted: answered class of every sample, or None.
        classes: how many there are.

    Returns:
        0 to 1.

    Raises:
        ValueError: if there is no sample or no class, or the lengths differ.
    """
    if classes < 1:
        raise ValueError(f"{classes} classes have no mean F1 score")
    return sum(f1_by_class(gold, predicted, range(classes))) / classes


def macro_f1_present(gold: Sequence[int], predicted: Sequence[int | None]) -> float:
    """Return the mean F1 score over the classes that samples have.

    Args:
        gold: class of every sample.
        predicted: answered class of every sample, or None.

    Returns:
        0 to 1.

    Raises:
        ValueError: if there is no sample, or the lengths differ.
    """
    present = sorted(set(gold))
    scores = f1_by_class(gold, predicted, present)
    return sum(scores) / len(present)


def _check(gold: Sequence[int], predicted: Sequence[int | None]) -> None:
    if not gold or len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} samples and {len(predicted)} answers cannot be scored")

"""A batch that does not fit in memory, in two halves: between its questions, or inside one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tempeval.engine.question import Outcome
from tempeval.engine.scores import Scores
from tempeval.engine.usage import combined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.work import Item


def halves(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Cut a batch in two.

    Args:
        items: several questions, or one with several continuations, which then is in both halves
            with its own part of them.
    """
    if len(items) > 1:
        middle = len(items) // 2
        return items[:middle], items[middle:]
    (item,) = items
    labels = item.continuations
    middle = len(labels) // 2
    first, second = (
        replace(item, continuations=part) for part in (labels[:middle], labels[middle:])
    )
    return (first,), (second,)


def joined(first: Outcome, second: Outcome) -> Outcome:
    """Join the outcomes of two parts of one question's continuations; one that failed fails it."""
    if not isinstance(first.answer, Scores) or not isinstance(second.answer, Scores):
        return first if first.answer is None else second
    # What the question shares with others is in both: it counts once.
    other = replace(second.usage, amortised_ms=second.usage.answer_ms)
    return Outcome(first.answer + second.answer, combined([first.usage, other]))

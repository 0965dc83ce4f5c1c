"""Means over samples that YAMLs name, and the scores of parts of a task.

Every sample gives every metric of its task, None where it does not apply: lmms-eval takes the size
of a task, by which groups weigh it, from whichever metric came up last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def mean_score(items: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of the samples' scores, 0 to 1."""
    return sum(float(item["score"]) for item in items) / len(items)


def mean_of_known(items: Sequence[float | None]) -> float | None:
    """Return the mean over the samples to which a metric applies; None where it applies to none."""
    known = [float(item) for item in items if item is not None]
    return math.fsum(known) / len(known) if known else None


def total(items: Sequence[int]) -> int:
    """Return the sum of a count over the samples."""
    return sum(items)


def total_of_tasks(totals: Sequence[int], _sizes: Sequence[int], _weight_by_size: bool) -> int:
    """Return the sum of a count over the tasks of a group; lmms-eval hands over their sizes too."""
    return sum(totals)


def parts(names: Iterable[str], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a task's parts for one sample.

    Args:
        names: all of them.
        scores: of those that the sample belongs to.
    """
    return {name: scores.get(name) for name in names}

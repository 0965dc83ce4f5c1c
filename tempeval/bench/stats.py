"""Median and a distribution-free interval of a ratio measured in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Median of several measurements with its order-statistic interval.

    Attributes:
        median: of the values.
        low, high: two order statistics of the values.
        coverage: probability that `low..high` covers the true median; below 0.95 when there are
            fewer than 6 values, and then the interval is their whole range.
        count: number of values.
    """

    median: float
    low: float
    high: float
    coverage: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the narrowest order-statistic interval that covers 95 %.

    The interval from the k-th smallest to the k-th largest of n values covers the median with
    probability `1 - 2 * sum(C(n, i), i < k) / 2^n`, whatever the distribution: one wild value on
    a busy machine cannot narrow it, as it can a standard error.

    Args:
        values: at least one.
    """
    ordered = sorted(values)
    count = len(ordered)
    rank, covered = 1, _coverage(count, 1)
    while 2 * (rank + 1) <= count and _coverage(count, rank + 1) >= CONFIDENCE:
        rank += 1
        covered = _coverage(count, rank)
    return Spread(median(ordered), ordered[rank - 1], ordered[-rank], covered, count)


def _coverage(count: int, rank: int) -> float:
    outside = sum(comb(count, below) for below in range(rank)) / float(2**count)
    return max(1.0 - 2.0 * outside, 0.0)


def shared_limit(stages: dict[str, float], questions: int) -> float:
    """Return how much faster sharing one prefix can be at most, for one method.

    `(D + V + P + S) * m / (D + V + P + m * S)`: decode, encode and prefill once instead of m times.

    Args:
        stages: milliseconds of `decode`, `encode`, `prefill` (each once) and `answer` (per
            question).
        questions: m, questions on one video.
    """
    once = stages["decode"] + stages["encode"] + stages["prefill"]
    answer = stages["answer"]
    return questions * (once + answer) / (once + questions * answer)

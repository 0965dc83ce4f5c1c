"""How far two measured budgets are from each other, and when that is near enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tempeval.leaderboard.records import Entry, Floats

# The share of paired samples that must lie within the tolerance.
PAIRED_SHARE = 0.99
# The share of all samples that both sides must have answered, whatever --max-failures accepts: two
# runs that each fail 5 % may have that many in common.
ANSWERED_SHARE = 0.9
# Relative slack for decimal tolerances that have no exact binary value.
_SLACK = 1e-9


class Distance(NamedTuple):
    """How far a method's measured budget is from a baseline's, over the paired samples.

    Attributes:
        paired: samples measured on both sides.
        outside: paired samples that differ by more than the tolerance.
        value: the method's mean.
        reference: the baseline's mean.
        close: the means differ by at most the tolerance.
        matches: they do, and so do enough samples.
        answered: enough samples are paired.
    """

    paired: int
    outside: int
    value: float
    reference: float
    close: bool
    matches: bool
    answered: bool

    @property
    def fits(self) -> bool:
        """Whether the two may be compared."""
        return self.matches and self.answered


def distance(value: Floats, reference: Floats, tolerance: float) -> Distance:
    """Compare two measured budgets sample by sample.

    They match when at least 99 % of the paired samples differ by at most the tolerance, and so
    do the means. The tolerance is a fraction of the larger of the two, so that the answer does
    not depend on which is called the baseline, and any two runs planned within 98 to 100 % of
    one budget match at 2 %.

    Args:
        value: [n], the method's measure, NaN where not measured.
        reference: [n], the baseline's.
        tolerance: >= 0, as a fraction (0.02 is 2 %).

    Returns:
        The distance; it never matches without a paired sample.
    """
    size = len(value)
    both = ~(np.isnan(value) | np.isnan(reference))
    value, reference = value[both], reference[both]
    paired = len(value)
    if paired == 0:
        return Distance(
            0, 0, float("nan"), float("nan"), close=False, matches=False, answered=False
        )
    allowed = tolerance * np.maximum(np.abs(value), np.abs(reference))
    outside = int((np.abs(value - reference) > allowed * (1 + _SLACK)).sum())
    mean, base = float(value.mean()), float(reference.mean())
    enough = outside <= (1 - PAIRED_SHARE) * paired * (1 + _SLACK)
    close = abs(mean - base) <= tolerance * max(abs(mean), abs(base)) * (1 + _SLACK)
    answered = paired >= ANSWERED_SHARE * size * (1 - _SLACK)
    return Distance(paired, outside, mean, base, close, enough and close, answered)


def mean_budget(entry: Entry, on: str) -> float:
    """Give the mean of a measure over the answered samples."""
    return float(entry.samples.measures[on][~entry.samples.failed].mean())


def between(entry: Entry, anchor: Entry, tolerance: float, on: str) -> Distance:
    """Compare the measured budgets of two entries over the same samples, failed ones left out."""
    value = np.where(entry.samples.failed, np.nan, entry.samples.measures[on])
    reference = np.where(anchor.samples.failed, np.nan, anchor.samples.measures[on])
    return distance(value, reference, tolerance)

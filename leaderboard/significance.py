"""What is said of a test: Holm's correction, McNemar's test, detectable effects, win counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, stdtrit  # scipy.stats looks for torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.records import Floats

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Holm:
    """Corrected p values of a family of cells.

    Attributes:
        p: in the order of the cells, None where a cell has no p value.
        tests: number of cells with one, which the correction is for.
        left_out: number of cells without.
    """

    p: tuple[float | None, ...]
    tests: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples on which the method scores better than, as, or worse than the baseline."""

    wins: int
    ties: int
    losses: int


def holm(p_values: Sequence[float | None]) -> Holm:
    """Correct p values so that the chance of any false rejection is at most ALPHA.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
    of Statistics 6(2), 1979. In ascending order, p_(i) becomes the largest of
    min(1, (k - j + 1) p_(j)) over j <= i, for k tests. It needs no independence.

    Args:
        p_values: one per cell, in (0, 1]; None where there is no test.

    Returns:
        The corrected values; cells of equal p values get equal ones.
    """
    known = [i for i, p in enumerate(p_values) if p is not None]
    values = np.array([p_values[i] for i in known], dtype=np.float64)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    raised = np.minimum(1.0, np.maximum.accumulate(scaled)) if len(values) else scaled
    corrected: list[float | None] = [None] * len(p_values)
    for place, p in zip(order, raised, strict=True):
        corrected[known[int(place)]] = float(p)
    return Holm(tuple(corrected), len(known), len(p_values) - len(known))


def exact_mcnemar(counts: Counts) -> float:
    """Compute the exact two-sided McNemar p value.

    Source: McNemar, Psychometrika 12(2), 1947, with the binomial in place of the chi-squared
    distribution. For one question per cluster and right-or-wrong scores it equals the sign-flip
    test; with more questions it takes answers about one video for independent ones, so
    `stats.paired` does not give it there.

    Args:
        counts: of samples; ties do not matter.

    Returns:
        p in (0, 1].
    """
    decided = counts.wins + counts.losses
    tail = bdtr(min(counts.wins, counts.losses), decided, 0.5)
    return float(min(1.0, max(np.finfo(np.float64).tiny, 2 * tail)))


def minimum_detectable_effect(se: float, clusters: int) -> float | None:
    """Compute the true difference that one test at ALPHA would find with a chance of POWER.

    Source: Bloom, "Minimum Detectable Effects", Evaluation Review 19(5), 1995, for clusters:
    (t_{1-ALPHA/2} + t_{POWER}) * SE with C-1 degrees of freedom (2.80 SE for many clusters);
    Miller 2024, section 5, solves the same for the number of questions. It is for one test alone:
    Holm's correction needs more.

    Args:
        se: clustered standard error of the paired difference, in the unit of the scores.
        clusters: C, >= 2.

    Returns:
        The difference in the unit of the scores; None where the standard error is 0, which says
        that nothing was seen to vary, not that everything would be found.
    """
    if se == 0:
        return None
    ends = stdtrit(clusters - 1, [1 - ALPHA / 2, POWER])
    return float(np.sum(ends) * se)


def count_wins(differences: Floats, *, higher_is_better: bool = True) -> Counts:
    """Count the samples that a method wins, ties and loses.

    Args:
        differences: [n], score of the method minus score of the baseline.
        higher_is_better: whether a positive difference is a win.

    Returns:
        The counts; they add up to n.
    """
    above, below = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    wins, losses = (above, below) if higher_is_better else (below, above)
    return Counts(wins, len(differences) - above - below, losses)

"""Statistics of one task or of a mean over tasks: every method against the baseline, paired.

This module joins the parts (`clusters`, `bootstrap`, `permutation`, `significance`) and is what
the tables call. Formulas, sources and measured error rates are in `docs/statistics.md`.

Shapes: n samples, C clusters, M methods, T tasks, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tempeval.leaderboard.bootstrap import (
    LEVEL,
    STUDENTISED_BELOW,
    Interval,
    IntervalKind,
    mean_ratio_intervals,
    ratio_intervals,
)
from tempeval.leaderboard.clusters import (
    Codes,
    cluster_codes,
    cluster_sums,
    clustered_se,
    ratio_se,
)
from tempeval.leaderboard.errors import LeaderboardError
from tempeval.leaderboard.permutation import SignFlip, sign_flip_tests
from tempeval.leaderboard.significance import (
    ALPHA,
    POWER,
    Counts,
    Holm,
    count_wins,
    exact_mcnemar,
    holm,
    minimum_detectable_effect,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.records import Floats

__all__ = [
    "ALPHA",
    "DRAWS",
    "LEVEL",
    "POWER",
    "STUDENTISED_BELOW",
    "Codes",
    "Counts",
    "Holm",
    "Interval",
    "IntervalKind",
    "NotFinite",
    "Paired",
    "SignFlip",
    "cluster_codes",
    "cluster_sums",
    "clustered_se",
    "count_wins",
    "exact_mcnemar",
    "holm",
    "mean_ratio_intervals",
    "minimum_detectable_effect",
    "paired",
    "paired_macro",
    "ratio_intervals",
    "ratio_se",
    "sign_flip_tests",
]

DRAWS = 10_000


class NotFinite(LeaderboardError):
    """Scores with NaN or infinity, which no statistic is defined for.

    Args:
        column: which method's scores, from 0; -1 for the baseline's.
        count: how many of them.
    """

    def __init__(self, column: int, count: int) -> None:
        self.column, self.count = column, count
        whose = "the baseline" if column < 0 else f"method {column}"
        super().__init__(
            f"{count} scores of {whose} are NaN or infinite; finite numbers are accepted. "
            "Leave the run out, or rescore it"
        )


@dataclass(frozen=True, slots=True)
class Paired:
    """One method against the baseline, in the unit of the scores.

    Attributes:
        difference: mean over samples (over tasks of those, for a macro) of method - baseline.
        se: its clustered standard error, with C/(C-1).
        interval: cluster-bootstrap interval of the difference at LEVEL.
        test: clustered sign-flip test, before any correction.
        mcnemar: exact McNemar p value, only where every cluster has one sample and every score
            is 0 or 1; always None for a macro over several tasks.
        detectable: minimum detectable effect of one test, >= 0.
        counts: wins, ties and losses by sample.
        n: samples (of all tasks).
        clusters: C.

    All but difference, counts, n and clusters are None below 2 clusters; `detectable` also where
    the standard error is 0.
    """

    difference: float
    se: float | None
    interval: Interval | None
    test: SignFlip | None
    mcnemar: float | None
    detectable: float | None
    counts: Counts
    n: int
    clusters: int


def paired(
    scores: Floats,
    baseline: Floats,
    names: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    higher_is_better: bool = True,
) -> tuple[Paired, ...]:
    """Compare methods with the baseline on one task; rows are aligned by sample.

    Args:
        scores: [n, M], finite.
        baseline: [n], finite.
        names: [n], the cluster of each sample.
        draws: bootstrap draws, and sign patterns where the test is not exact; >= 1.
        seed: of both generators. A method's numbers do not depend on the other methods.
        higher_is_better: of the scores; decides what is a win.

    Returns:
        One comparison per method.

    Raises:
        NotFinite: a score is NaN or infinite.
    """
    return paired_macro(
        [(scores, baseline, names)],
        draws=draws,
        seed=seed,
        higher_is_better=higher_is_better,
    )


def paired_macro(
    tasks: Sequence[tuple[Floats, Floats, Sequence[str]]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    higher_is_better: bool = True,
) -> tuple[Paired, ...]:
    """Compare methods with the baseline on the mean over tasks of their scores.

    Clusters of one name are one cluster whatever the task: they are drawn together and change
    sign together.

    Args:
        tasks: T of (scores [n_t, M], baseline [n_t], cluster names [n_t]), as for `paired`; all
            tasks have the same M methods and at least one sample.
        draws: as for `paired`.
        seed: as for `paired`.
        higher_is_better: as for `paired`; the same for all tasks.

    Returns:
        One comparison per method.

    Raises:
        NotFinite: a score is NaN or infinite.
    """
    for scores, baseline, _ in tasks:
        _check_finite(scores, baseline)
    codes, clusters = cluster_codes([name for _, _, names in tasks for name in names])
    sizes = [len(names) for _, _, names in tasks]
    methods = tasks[0][0].shape[1]
    sums = np.zeros((clusters, methods, len(tasks)))
    counts = np.zeros((clusters, len(tasks)))
    gaps = [scores - baseline[:, np.newaxis] for scores, baseline, _ in tasks]
    for t, part in enumerate(np.split(codes, np.cumsum(sizes)[:-1])):
        counts[:, t] = cluster_sums(np.ones(len(part)), part, clusters)
        for m in range(methods):
            sums[:, m, t] = cluster_sums(gaps[t][:, m], part, clusters)
    intervals = mean_ratio_intervals(sums, counts, draws, seed)
    tests = sign_flip_tests(_shares(sums, counts), draws=draws, seed=seed)
    errors = _errors(sums, counts)
    one_each = len(tasks) == 1 and clusters == sizes[0] >= 2
    found = []
    for m in range(methods):
        wins = count_wins(
            np.concatenate([g[:, m] for g in gaps]), higher_is_better=higher_is_better
        )
        se = None if errors is None else float(errors[m])
        binary = one_each and _is_binary(tasks[0][0][:, m]) and _is_binary(tasks[0][1])
        found.append(
            Paired(
                difference=float(np.mean([gap[:, m].mean() for gap in gaps])),
                se=se,
                interval=intervals[m],
                test=tests[m],
                mcnemar=exact_mcnemar(wins) if binary else None,
                detectable=None if se is None else minimum_detectable_effect(se, clusters),
                counts=wins,
                n=sum(sizes),
                clusters=clusters,
            )
        )
    return tuple(found)


def _shares(sums: Floats, counts: Floats) -> Floats:
    """Compute what each cluster adds to the mean over tasks, times its samples if T = 1."""
    if counts.shape[1] == 1:
        return sums[:, :, 0]
    shares: Floats = np.sum(sums / counts.sum(axis=0), axis=2)
    return shares


def _errors(sums: Floats, counts: Floats) -> Floats | None:
    """Compute the standard error [M] of means over tasks: `ratio_se` of first-order changes."""
    clusters, _, tasks = sums.shape
    if clusters < 2:
        return None
    totals = counts.sum(axis=0)
    ratios = sums.sum(axis=0) / totals  # [M, T]
    changes = np.sum((sums - ratios * counts[:, np.newaxis]) / totals, axis=2) / tasks  # [C, M]
    # The changes add up to 0: they are deviations already, of a mean over C clusters of C * change.
    return ratio_se(changes * clusters, np.ones(clusters))


def _is_binary(scores: Floats) -> bool:
    return bool(np.all((scores == 0) | (scores == 1)))


def _check_finite(scores: Floats, baseline: Floats) -> None:
    for column, values in ((-1, baseline), *enumerate(scores.T)):
        if count := int(np.sum(~np.isfinite(values))):
            raise NotFinite(column, count)

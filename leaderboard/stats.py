"""Statistics of clustered, paired scores: standard errors and cluster-bootstrap intervals.

Sources: Miller, "Adding Error Bars to Evals" (arXiv 2411.00640, 2024), equations 1 and 4;
Cameron, Gelbach and Miller, "Bootstrap-Based Improvements for Inference with Clustered Errors"
(Review of Economics and Statistics 90(3), 2008): whole clusters are drawn, not questions.

Shapes: n samples, C clusters, M methods, T tasks, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.leaderboard.records import Floats

Codes: TypeAlias = NDArray[np.intp]

LEVEL = 0.95
# Resampled weights are made in blocks of at most this many numbers (32 MiB of float64).
_BLOCK = 4_194_304
# An interval is not given when more than this fraction of draws leaves a task without samples.
_MAX_EMPTY = 0.01


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval at LEVEL, in the unit of the values."""

    low: float
    high: float


def cluster_codes(names: Sequence[str]) -> tuple[Codes, int]:
    """Number the clusters 0..C-1 in order of their names.

    Args:
        names: [n], the cluster of each sample.

    Returns:
        codes [n] and C. The numbering depends on the names only, so seeded draws do too.
    """
    numbers = {name: i for i, name in enumerate(sorted(set(names)))}
    codes = np.fromiter((numbers[name] for name in names), dtype=np.intp, count=len(names))
    return codes, len(numbers)


def cluster_sums(values: Floats, codes: Codes, clusters: int) -> Floats:
    """Sum values within clusters.

    Args:
        values: [n].
        codes: [n], in 0..clusters-1.
        clusters: C.

    Returns:
        [C].
    """
    sums: Floats = np.bincount(codes, weights=values, minlength=clusters).astype(np.float64)
    return sums


def clustered_se(values: Floats, codes: Codes, clusters: int) -> float | None:
    """Compute the standard error of a mean of clustered values.

    Source: Miller 2024, equation 4: SE^2 = SE_CLT^2 + 1/n^2 sum_c sum_i sum_{j != i} of the
    products of deviations from the mean within clusters; SE_CLT^2 = var/n with n-1 (equation 1).

    Args:
        values: [n].
        codes: [n], in 0..clusters-1.
        clusters: C.

    Returns:
        The standard error in the unit of the values; None below 2 clusters, where the formula
        gives almost 0 whatever the values are.
    """
    if clusters < 2:
        return None
    n = len(values)
    deviations = values - values.mean()
    squares = float(np.sum(deviations**2))
    within = float(np.sum(cluster_sums(deviations, codes, clusters) ** 2))
    return float(np.sqrt(squares / (n - 1) / n + (within - squares) / n**2))


def ratio_intervals(
    sums: Floats, counts: Floats, *, draws: int, seed: int
) -> tuple[Interval | None, ...]:
    """Compute cluster-bootstrap percentile intervals of sums/counts.

    Source: Cameron, Gelbach and Miller 2008 (pairs cluster bootstrap). Each draw takes C
    clusters with replacement; the estimate is the ratio of the drawn sum to the drawn count
    because clusters differ in size. All columns share the draws.

    Args:
        sums: [C, M], sums of paired differences within clusters, one column per method.
        counts: [C], samples per cluster, >= 1.
        draws: B, >= 1.
        seed: of the generator; the same inputs give the same intervals.

    Returns:
        One interval per method; None below 2 clusters.
    """
    return mean_ratio_intervals(sums[:, :, np.newaxis], counts[:, np.newaxis], draws, seed)


def mean_ratio_intervals(
    sums: Floats, counts: Floats, draws: int, seed: int
) -> tuple[Interval | None, ...]:
    """Compute cluster-bootstrap percentile intervals of the mean over tasks of sums/counts.

    Clusters are drawn once for all tasks, so a video that several tasks ask about stays one
    cluster. Draws in which a task has no sample left are skipped.

    Args:
        sums: [C, M, T], sums within clusters.
        counts: [C, T], samples per cluster and task; each cluster has some.
        draws: B, >= 1.
        seed: of the generator.

    Returns:
        One interval per method; None below 2 clusters, or when more than 1 % of the draws had
        to be skipped.
    """
    clusters, methods, tasks = sums.shape
    nothing: tuple[None, ...] = (None,) * methods
    if clusters < 2:
        return nothing
    flat = np.ascontiguousarray(sums.reshape(clusters, methods * tasks))
    parts = []
    for weights in _weights(clusters, draws, seed):
        drawn = weights @ counts  # [b, T]
        full = np.all(drawn > 0, axis=1)
        ratios = (weights[full] @ flat).reshape(-1, methods, tasks) / drawn[full][:, np.newaxis]
        parts.append(ratios.mean(axis=2))
    estimates = np.concatenate(parts)  # [<= B, M]
    if len(estimates) < (1 - _MAX_EMPTY) * draws:
        return nothing
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail], axis=0)
    return tuple(Interval(float(a), float(b)) for a, b in zip(low, high, strict=True))


def _weights(clusters: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yield blocks [b, C] of how often each cluster is drawn, B rows in all."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // clusters)
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        picks = generator.integers(0, clusters, size=(block, clusters))
        picks += np.arange(block)[:, np.newaxis] * clusters
        times = np.bincount(picks.ravel(), minlength=block * clusters)
        yield times.reshape(block, clusters).astype(np.float64)

"""Clusters of samples: their numbers, their sums, and standard errors that respect them.

A cluster is what the task's cluster key names (a video, a scene): its questions are not
independent, so every statistic here and in the neighbouring modules is made of cluster sums.

Shapes: n samples, C clusters, M methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.records import Floats

Codes: TypeAlias = NDArray[np.intp]


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
    """Compute the standard error of a mean of clustered values, as lmms-eval prints it.

    Source: Miller 2024 (arXiv 2411.00640), equation 4: SE^2 = SE_CLT^2 + 1/n^2 sum_c sum_i
    sum_{j != i} of the products of deviations from the mean within clusters; SE_CLT^2 = var/n
    with n-1 (equation 1).

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
    return float(np.sqrt(max(0.0, squares / (n - 1) / n + (within - squares) / n**2)))


def ratio_se(sums: Floats, counts: Floats) -> Floats:
    """Compute the standard error of sum(sums)/sum(counts) over clusters, with C/(C-1).

    Source: Miller 2024, equation 4, with every product of deviations within a cluster written as
    the square of their sum, times C/(C-1) (CR1 in Cameron and Miller 2015, Journal of Human
    Resources 50(2), section II.B). Deviations are from the estimated mean, which costs one of C
    degrees of freedom: with the factor the variance is unbiased for clusters of equal size, and
    with one sample in each it is the usual var/n with n-1. `clustered_se` has no such factor
    because it is to equal the host's.

    Args:
        sums: [C, M], sums within clusters.
        counts: [C], samples per cluster, >= 1; C >= 2.

    Returns:
        [M], in the unit of the values.
    """
    clusters, total = len(counts), counts.sum()
    deviations = sums - sums.sum(axis=0) / total * counts[:, np.newaxis]
    variance = np.sum(deviations**2, axis=0) * clusters / (clusters - 1) / total**2
    root: Floats = np.sqrt(variance)
    return root

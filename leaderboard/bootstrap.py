"""Cluster-bootstrap intervals of paired differences, for one task and for means over tasks.

Whole clusters are drawn with replacement, not questions (Cameron, Gelbach and Miller,
"Bootstrap-Based Improvements for Inference with Clustered Errors", Review of Economics and
Statistics 90(3), 2008). An estimate needs nothing but the sums within clusters, so a draw is a
vector of how often each cluster was taken, and all draws are matrix products with those sums
(`resampling`).

Shapes: C clusters, G kinds of clusters, M methods, T tasks, B draws, b draws of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from tempeval.leaderboard.resampling import (
    Products,
    cluster_weights,
    join_kinds,
    kind_weights,
    split_by_tasks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard.records import Floats

LEVEL = 0.95
# Below this many clusters the interval is studentised: percentiles are then too narrow.
STUDENTISED_BELOW = 100
# An interval is not given when more than this fraction of draws leaves a task without samples.
_MAX_EMPTY = 0.01
# A variance or an end this much smaller than the largest of its terms is rounding.
_ROUNDING = 1e-12
# Stands for an infinite t: finite, so that quantiles between two of them are defined.
_ENDLESS = 1e150


#: Which percentiles the ends are of; the fallback is of too few clusters and too narrow.
IntervalKind: TypeAlias = Literal["percentile", "studentised", "percentile_fallback"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval at LEVEL, in the unit of the values."""

    low: float
    high: float
    kind: IntervalKind = "percentile"


def ratio_intervals(
    sums: Floats, counts: Floats, *, draws: int, seed: int
) -> tuple[Interval | None, ...]:
    """Compute cluster-bootstrap intervals of sum(sums)/sum(counts).

    The estimate of a draw is the ratio of its sum to its count because clusters differ in size.

    Args:
        sums: [C, M], sums of paired differences within clusters, one column per method.
        counts: [C], samples per cluster, >= 1.
        draws: B, >= 1.
        seed: of the generator; the same inputs give the same intervals.

    Returns:
        One interval per method, which does not depend on the others; None below 2 clusters.
        See `mean_ratio_intervals` for its kind.
    """
    return mean_ratio_intervals(sums[:, :, np.newaxis], counts[:, np.newaxis], draws, seed)


def mean_ratio_intervals(
    sums: Floats, counts: Floats, draws: int, seed: int
) -> tuple[Interval | None, ...]:
    """Compute cluster-bootstrap intervals of the mean over tasks of sum(sums)/sum(counts).

    Clusters are drawn once for all tasks, so a video that several tasks ask about stays one
    cluster. Draws in which a task has no sample left are skipped.

    From STUDENTISED_BELOW clusters on, the ends are percentiles of the estimates. Below, they are
    those of t = (estimate of the draw - estimate) / standard error of the draw, turned round and
    times the standard error (Efron and Tibshirani 1993, section 12.5; Cameron, Gelbach and Miller
    2008, section III). Where clusters that differ are so few that an end would be infinite (more
    than 2.5 % of the draws lie on one side of the estimate and have no spread), both ends are
    percentiles and the kind is `percentile_fallback`.

    Args:
        sums: [C, M, T], sums within clusters.
        counts: [C, T], samples per cluster and task; each cluster has some.
        draws: B, >= 1.
        seed: of the generator.

    Returns:
        One interval per method; None below 2 clusters, or when more than 1 % of the draws had
        to be skipped.
    """
    clusters, methods, tasks = map(int, sums.shape)
    found: list[Interval | None] = [None] * methods
    if clusters < 2:
        return tuple(found)
    width = 2 * tasks**2 if clusters < STUDENTISED_BELOW else tasks  # numbers per method
    parts = split_by_tasks(counts)
    apart = []
    for m in range(methods):
        kinds = join_kinds(sums[:, m], counts, parts)
        if kinds is None:
            apart.append(m)
            continue
        weights = kind_weights(kinds.sizes, draws, seed, width)
        few = kinds.sums[:, np.newaxis]
        (interval,) = _intervals(few, kinds.counts, kinds.sizes, weights, draws)
        found[m] = _mirrored(interval) if kinds.negated and interval else interval
    if apart:
        order = np.concatenate([rows for rows, _ in parts])
        weights = cluster_weights(clusters, draws, seed, width * len(apart))
        ones = np.ones(clusters)
        several = _intervals(sums[order][:, apart], counts[order], ones, weights, draws)
        for m, interval in zip(apart, several, strict=True):
            found[m] = interval
    return tuple(found)


def _mirrored(interval: Interval) -> Interval:
    return Interval(0.0 - interval.high, 0.0 - interval.low, interval.kind)


def _intervals(
    sums: Floats, counts: Floats, sizes: Floats, weights: Iterator[Floats], draws: int
) -> tuple[Interval | None, ...]:
    """Compute the intervals of sums [G, M, T] and counts [G, T] of `sizes` [G] clusters each."""
    _, methods, tasks = map(int, sums.shape)
    clusters = sizes.sum()
    totals = sizes @ counts
    ratios = np.tensordot(sizes, sums, axes=1) / totals  # [M, T]
    # Around the estimate, so that small differences of large sums are not rounded away.
    rest = sums - ratios * counts[:, np.newaxis]
    squares = _Squares(rest, counts) if clusters < STUDENTISED_BELOW else None
    products = Products(rest, counts)
    parts, variances = [], []
    for block in weights:
        drawn, gaps = products(block)
        full = np.all(drawn > 0, axis=1)
        block, drawn = block[full], drawn[full]
        gaps = gaps[full] / drawn[:, np.newaxis]
        parts.append(gaps.mean(axis=2))
        if squares:
            variances.append(squares.variance(block, drawn, gaps))
    gaps = np.concatenate(parts)  # [<= B, M]
    if len(gaps) < (1 - _MAX_EMPTY) * draws:
        return (None,) * methods
    estimates = ratios.mean(axis=1)
    low, high = _quantiles(gaps)
    kinds: list[IntervalKind] = ["percentile"] * methods
    if squares:
        own = squares.variance(sizes[np.newaxis], totals[np.newaxis], np.zeros((1, methods, tasks)))
        roots = np.sqrt(np.concatenate(variances))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(gaps == 0, 0.0, gaps / roots)
        ends = _quantiles(np.clip(t, -_ENDLESS, _ENDLESS))
        known = np.max(np.abs(ends), axis=0) < 1 / _ROUNDING
        error = np.sqrt(own[0])
        low = np.where(known, -ends[1] * error, low)
        high = np.where(known, -ends[0] * error, high)
        kinds = ["studentised" if finite else "percentile_fallback" for finite in known]
    found = zip(_sum(estimates, low), _sum(estimates, high), kinds, strict=True)
    return tuple(Interval(float(a), float(b), kind) for a, b, kind in found)


def _sum(estimates: Floats, reach: Floats) -> Floats:
    """Add [M] and [M]; what cancels but for rounding is 0."""
    ends = estimates + reach
    exact: Floats = np.where(np.abs(ends) <= _ROUNDING * np.abs(estimates), 0.0, ends)
    return exact


def _quantiles(values: Floats) -> Floats:
    tail = (1 - LEVEL) / 2
    ends: Floats = np.quantile(values, [tail, 1 - tail], axis=0)
    return ends


class _Squares:
    """Variances of the mean over tasks of ratios, for many weightings of the same clusters.

    The estimate changes with a cluster by a = mean over tasks of (rest - gap * count) / drawn, to
    first order; the variance is the weighted sum of a^2. It is written out in products of columns
    that do not depend on the draw, so that a block of draws is one matrix product.
    """

    def __init__(self, rest: Floats, counts: Floats) -> None:
        kinds, self.methods, self.tasks = rest.shape
        own = np.einsum("gmt,gmu->gmtu", rest, rest).reshape(kinds, -1)
        mixed = np.einsum("gmt,gu->gmtu", rest, counts).reshape(kinds, -1)
        sizes = np.einsum("gt,gu->gtu", counts, counts).reshape(kinds, -1)
        self.cuts = np.cumsum([own.shape[1], mixed.shape[1]])
        self.columns = np.hstack([own, mixed, sizes])

    def variance(self, weights: Floats, drawn: Floats, gaps: Floats) -> Floats:
        """Compute variances [b, M] for weights [b, G], counts drawn [b, T], gaps [b, M, T]."""
        shape = (-1, self.methods, self.tasks, self.tasks)
        own, mixed, sizes = np.split(weights @ self.columns, self.cuts, axis=1)
        share = 1 / (self.tasks * drawn)  # [b, T]
        shift = share[:, np.newaxis] * gaps  # [b, M, T]
        first = np.einsum("bt,bu,bmtu->bm", share, share, own.reshape(shape))
        cross = np.einsum("bt,bmu,bmtu->bm", share, shift, mixed.reshape(shape))
        sizes = sizes.reshape(-1, self.tasks, self.tasks)
        last = np.einsum("bmt,bmu,btu->bm", shift, shift, sizes)
        variance = first - 2 * cross + last
        result: Floats = np.where(variance <= _ROUNDING * (first + last), 0.0, variance)
        return result

"""Resampling of clusters: how often each is drawn, and the sums that follow.

Clusters with equal sums are interchangeable. Where few sums differ, as for right-or-wrong scores,
they are joined to kinds, and how many of each kind are drawn comes from a multinomial: the same
distribution at a cost that does not grow with the number of clusters.

Shapes: C clusters, G kinds of clusters (or clusters), M methods, T tasks, B draws, b of a block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard.clusters import Codes
    from tempeval.leaderboard.records import Floats

# Draws are made in blocks that need at most this many numbers at a time (16 MiB of float64).
_BLOCK = 2_097_152
# Clusters are counted in pieces of at most this many, so that the counts stay in cache.
_PIECE = 65_536
# Kinds are drawn instead of clusters where there are at least this many clusters to a kind: one
# binomial costs about as much as so many random integers and their counting.
_PER_KIND = 32


def split_by_tasks(counts: Floats) -> list[tuple[Codes, Codes]]:
    """Split clusters by the tasks they have samples of: (clusters, tasks) of each part."""
    _, part = np.unique(counts > 0, axis=0, return_inverse=True)
    members = [np.flatnonzero(part == p) for p in range(int(part.max()) + 1)]
    return [(rows, np.flatnonzero(counts[rows[0]])) for rows in members]


@dataclass(frozen=True, slots=True)
class Kinds:
    """Clusters of one method with equal sums and counts, joined.

    Attributes:
        sums: [G, T], negated or not.
        counts: [G, T].
        sizes: [G], in clusters.
        negated: chosen so that two methods that change places have the same kinds.
    """

    sums: Floats
    counts: Floats
    sizes: Floats
    negated: bool


def join_kinds(sums: Floats, counts: Floats, parts: list[tuple[Codes, Codes]]) -> Kinds | None:
    """Join clusters of sums and counts [C, T]; None where kinds are many."""
    clusters, tasks = counts.shape
    most = clusters // _PER_KIND
    blocks, sizes, total = [], [], 0
    for rows, columns in parts:
        own = np.hstack([counts[rows][:, columns], sums[rows][:, columns]])
        kinds, times = _distinct(own)
        total += len(kinds)
        if total > most:
            return None
        block = np.zeros((len(kinds), 2 * tasks))
        block[:, np.concatenate([columns, columns + tasks])] = kinds
        blocks.append(block)
        sizes.append(times)
    plain = np.column_stack([*np.hsplit(np.concatenate(blocks), 2), np.concatenate(sizes)])
    turned = plain.copy()
    turned[:, tasks:-1] *= -1
    plain, turned = (table[np.lexsort(table.T[::-1])] + 0.0 for table in (plain, turned))
    first = int(np.argmax(plain.ravel() != turned.ravel()))  # 0, a count, where all are equal
    negated = bool(plain.flat[first] < turned.flat[first])
    table = turned if negated else plain
    return Kinds(table[:, tasks:-1], table[:, :tasks], table[:, -1], negated)


def _distinct(rows: Floats) -> tuple[Floats, Codes]:
    """Return the distinct rows in order, and how often each occurs."""
    ordered = rows[np.lexsort(rows.T[::-1])]
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    starts = np.flatnonzero(new)
    return ordered[starts], np.diff(np.append(starts, len(rows)))


class Products:
    """Sums of weighted clusters, for many weightings of the same ones."""

    def __init__(self, rest: Floats, counts: Floats) -> None:
        self.shape = rest.shape[1:]
        self.pieces = []
        # Neighbours with samples of the same tasks need no columns of other tasks.
        changes = np.any((counts[1:] > 0) != (counts[:-1] > 0), axis=1)
        if np.sum(changes) > 2 * counts.shape[1]:
            changes[:] = False
        edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(counts)]
        for start, end in itertools.pairwise(edges):
            tasks = np.flatnonzero(np.any(counts[start:end] > 0, axis=0))
            own = rest[start:end][:, :, tasks].reshape(end - start, -1)
            columns = np.hstack([counts[start:end][:, tasks], own])
            self.pieces.append((slice(start, end), tasks, columns))

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Compute weighted counts [b, T] and sums [b, M, T] for weights [b, G]."""
        methods, all_tasks = self.shape
        drawn = np.zeros((len(weights), all_tasks))
        sums = np.zeros((len(weights), methods, all_tasks))
        for rows, tasks, columns in self.pieces:
            product = weights[:, rows] @ columns
            drawn[:, tasks] += product[:, : len(tasks)]
            own = product[:, len(tasks) :].reshape(-1, methods, len(tasks))
            sums[:, :, tasks] += own
        return drawn, sums


def kind_weights(sizes: Floats, draws: int, seed: int, width: int) -> Iterator[Floats]:
    """Yield blocks [b, G] of how many clusters of each kind are drawn, B rows in all.

    Args:
        sizes: [G], clusters of each kind.
        draws: B.
        seed: of the generator; blocks do not change what is drawn.
        width: numbers needed for each draw beside its weights.
    """
    generator = np.random.default_rng(seed)
    clusters = int(sizes.sum())
    rows = max(1, _BLOCK // max(len(sizes), width))
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        drawn = generator.multinomial(clusters, sizes / clusters, size=block)
        yield drawn.astype(np.float64)


def cluster_weights(clusters: int, draws: int, seed: int, width: int) -> Iterator[Floats]:
    """Yield blocks [b, C] of how often each cluster is drawn, B rows in all.

    Args:
        clusters: C.
        draws: B.
        seed: of the generator; blocks do not change what is drawn.
        width: numbers needed for each draw beside its weights.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(clusters, width))
    piece = max(1, _PIECE // clusters)
    for start in range(0, draws, rows):
        times = np.empty((min(rows, draws - start), clusters))
        for first in range(0, len(times), piece):
            part = times[first : first + piece]
            picks = generator.integers(0, clusters, size=part.shape, dtype=np.int64)
            picks += np.arange(len(part))[:, np.newaxis] * clusters
            part[:] = np.bincount(picks.ravel(), minlength=part.size).reshape(part.shape)
        yield times

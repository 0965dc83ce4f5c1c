"""Clustered sign-flip permutation test of paired differences.

If method and baseline answer a cluster's questions equally well, they could as well change names
there, and with the names changes the sign of the cluster's sum of differences (Fisher's paired
test, with the cluster as unit: Winkler et al., "Multi-level block permutation", NeuroImage 123,
2015). The p value is the share of the 2^C sign patterns whose absolute sum is at least the one
found.

The statistic is the plain sum. Dividing it by its clustered standard error under the null
hypothesis, the root of the sum of squares, changes no p value, since flips leave squares as they
are: it is studentised already, and large clusters weigh in it as they do in the difference.

Shapes: C clusters, M methods, B draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln  # scipy.stats looks for torch

if TYPE_CHECKING:
    from tempeval.leaderboard.records import Floats

# Sums are compared up to this fraction of the sum of their absolute values: rounding.
_TIE = 1e-12
# A sum this near to a whole number of steps, in steps, is one.
_WHOLE = 1e-6
# Multiplications that an exact distribution of whole sums may take (about 0.1 s).
_MOST_WORK = 100_000_000
# Patterns or signs are made in blocks of at most this many numbers (16 MiB of float64).
_BLOCK = 2_097_152
_SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class SignFlip:
    """A two-sided p value in (0, 1]; `exact` is False where sign patterns were drawn."""

    p: float
    exact: bool


def sign_flip_tests(sums: Floats, *, draws: int, seed: int) -> tuple[SignFlip | None, ...]:
    """Test for each method whether its differences are symmetric around 0.

    Exact where the sums are whole multiples of their smallest (right-or-wrong scores: the
    distribution is a convolution of binomial ones, one for each size of sum), and where half
    of the patterns, which is enough, is no more than `draws`. Otherwise `draws` patterns are
    drawn, the same for all methods, and p = (b+1)/(draws+1) with b of them at least as extreme
    (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9(1)).

    Args:
        sums: [C, M], sums of paired differences within clusters, one column per method. For a
            mean over tasks: the sum over tasks of sums/samples of the task.
        draws: B, >= 1.
        seed: of the generator.

    Returns:
        One test per method, which does not depend on the others; None below 2 clusters.
    """
    clusters, methods = map(int, sums.shape)
    if clusters < 2:
        return (None,) * methods
    found: list[SignFlip | None] = []
    for column in sums.T:
        moving = np.abs(column[column != 0])
        if (p := _by_steps(moving, column.sum())) is None and len(moving) <= draws.bit_length():
            p = _by_enumeration(moving, column.sum())
        found.append(None if p is None else SignFlip(p, exact=True))
    drawn = [m for m in range(methods) if found[m] is None]
    if drawn:
        for m, p in zip(drawn, _by_draws(sums[:, drawn], draws, seed), strict=True):
            found[m] = SignFlip(float(p), exact=False)
    return tuple(found)


def _by_steps(sizes: Floats, total: float) -> float | None:
    """Compute p for sums whose absolute values [K] are whole multiples of the smallest of them.

    With X_a ~ Binomial(number of clusters of size a, 1/2), the sum of flipped sizes is
    2 * sum_a a X_a - sum of sizes. Probabilities are only added and multiplied, so that small
    p values are as exact as large ones.

    Returns:
        p, or None where sizes are no such multiples or too many.
    """
    if not len(sizes):
        return 1.0
    steps = sizes / sizes.min()
    whole = np.rint(steps)
    if whole.sum() > _MOST_WORK or np.any(np.abs(steps - whole) > _WHOLE):
        return None
    values, times = np.unique(whole.astype(np.int64), return_counts=True)
    lengths = np.cumsum(values * times) + 1  # of the distribution after each value
    reach = int(lengths[-1]) - 1
    if times[0] + lengths[:-1] @ times[1:] > _MOST_WORK:
        return None
    observed = abs(int(np.rint(total / sizes.min())))
    chances = np.ones(1)
    for value, count in zip(values, times, strict=True):
        chances = _with_size(chances, int(value), int(count))
    places = np.abs(2 * np.arange(reach + 1) - reach)
    return float(min(1.0, max(_SMALLEST, chances[places >= observed].sum())))


def _with_size(chances: Floats, value: int, count: int) -> Floats:
    """Convolve chances with those of value * Binomial(count, 1/2)."""
    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1)
    single = np.exp(logs - count * np.log(2))
    result = np.zeros(len(chances) + value * count)
    # Every value-th place is a convolution of its own.
    for first in range(min(value, len(chances))):
        part = np.convolve(chances[first::value], single)
        result[first : first + value * len(part) : value][: len(part)] += part
    return result


def _by_enumeration(sizes: Floats, total: float) -> float:
    """Compute p over all sign patterns of sizes [K]; by symmetry the first sign may be +."""
    flipped = sizes[:1]
    for size in sizes[1:]:
        flipped = np.concatenate([flipped + size, flipped - size])
    return float(np.mean(np.abs(flipped) >= abs(total) - _TIE * sizes.sum()))


def _by_draws(sums: Floats, draws: int, seed: int) -> Floats:
    """Compute p [M] of sums [C, M] from drawn sign patterns."""
    generator = np.random.default_rng(seed)
    clusters = len(sums)
    totals = sums.sum(axis=0)
    least = np.abs(totals) - _TIE * np.abs(sums).sum(axis=0)
    extreme = np.zeros(sums.shape[1])
    rows = max(1, _BLOCK // clusters)
    words = -(-clusters // 64)
    for start in range(0, draws, rows):
        # Whole words of the generator, so that blocks do not change what is drawn.
        size = (min(rows, draws - start), words)
        drawn = generator.integers(0, 2**64, size, dtype=np.uint64).astype("<u8")
        bits = np.unpackbits(drawn.view(np.uint8), axis=1, count=clusters)
        taken = bits.astype(np.float64)
        extreme += np.sum(np.abs(2 * (taken @ sums) - totals) >= least, axis=0)
    p: Floats = (extreme + 1) / (draws + 1)
    return p

"""Simulated paired answers with a known difference, and how often the statistics are right.

Every rate is measured with the functions the tables call and with their number of draws. The
figures of docs/statistics.md come from here (`.ci/statistics_docs.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from tempeval.leaderboard import stats

if TYPE_CHECKING:
    from collections.abc import Iterator

SIMULATIONS = 10_000

# Simulations that share bootstrap draws and, where those are at random, sizes of clusters; every
# such batch has another seed.
BATCH, BATCH_OF_SIZES = 100, 10
# Standard deviations in logits: of a video, of a question, of a method on a video.
VIDEO, QUESTION, METHOD = 1.0, 1.0, 0.8
MEAN = 0.5
# Sizes at random, and what they may do to the difference without changing its mean of 0: the sum
# of size * shift is 0.
SIZES = np.array([1, 5, 30])
SIZE_SHIFTS = np.array([-0.15, -0.15, 0.03])
# Chances of a better and of a worse answer.
RARE = 0.015, 0.005


@dataclass(frozen=True)
class Design:
    """Clusters, questions per cluster (None: sizes at random), and what the method does.

    `gain` is in logits. Of the other kinds, "by size" makes the method better in large clusters
    and worse in small ones, by nothing in the mean; "rare" changes 2 % of the answers, 3 of 4 for
    the better.
    """

    clusters: int
    questions: int | None
    gain: float = 0.0
    kind: str = "logits"

    @property
    def truth(self) -> float:
        """The expected difference: an integral over normal logits."""
        if self.kind != "logits":
            return {"by size": 0.0, "rare": RARE[0] - RARE[1]}[self.kind]
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        logits = MEAN + nodes * np.sqrt(VIDEO**2 + QUESTION**2 + METHOD**2)
        change = _chance(logits + self.gain) - _chance(logits)
        return float(change @ weights / weights.sum())


# What is measured: intervals that must hold the truth in 94 to 96 % of simulations, those whose
# share is only reported, and tests without an effect.
CALIBRATED = [
    Design(clusters, questions, gain)
    for clusters in (200, 500)
    for questions in (1, 3, 18)
    for gain in (0.0, 0.5)
]
REPORTED = [
    Design(71, 65),
    Design(71, 65, 0.5),
    Design(200, None, 0.5),
    Design(200, None, kind="by size"),
    Design(100, 18, 0.5),
    Design(99, 18, 0.5),
    Design(20, 18, 0.5),
    Design(1000, 1, kind="rare"),
    Design(200, 1, kind="rare"),
]
NO_EFFECT = [
    Design(200, 1),
    Design(200, 3),
    Design(200, 18),
    Design(20, 18),
    Design(71, 65),
    Design(200, None),
    Design(200, None, kind="by size"),
]
# Tables of three tasks and METHODS methods: no effects, and all methods better on the first task.
METHODS = 4
FAMILIES = {
    "no effects": [Design(200, 1), Design(200, 3), Design(100, 18)],
    "effects on one task": [Design(200, 1, 1.0), Design(200, 3), Design(100, 18)],
}
POWER = [Design(200, 1), Design(200, 3), Design(71, 65)]


def _chance(logits):
    return 1 / (1 + np.exp(-logits))


def answers(design: Design, simulations: int, methods: int, rng: np.random.Generator):
    """Draw right-or-wrong answers; the first method is the baseline, the others have the gain.

    Returns:
        answers [methods, questions, simulations] and the cluster of each question.
    """
    sizes = np.full(design.clusters, design.questions or 0)
    if design.questions is None:
        sizes = rng.choice(SIZES, design.clusters)
    codes = np.arange(design.clusters).repeat(sizes)
    if design.kind != "logits":
        place = rng.random((len(codes), simulations))
        won, lost = RARE
        if design.kind == "by size":
            shift = SIZE_SHIFTS[np.searchsorted(SIZES, sizes)][codes, np.newaxis]
            won, lost = 0.2 + shift, 0.2 - shift
        return np.stack([place > 1 - lost, place < won]), codes
    video = rng.normal(MEAN, VIDEO, (design.clusters, simulations))
    question = rng.normal(0, QUESTION, (len(codes), simulations))
    drawn = []
    for m in range(methods):
        own = video + rng.normal(design.gain if m else 0, METHOD, video.shape)
        drawn.append(rng.random(question.shape) < _chance(own[codes] + question))
    return np.stack(drawn), codes


def differences(
    design: Design, simulations: int, seed: int, methods: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield batches of (differences [methods - 1, n, simulations], codes [n], counts [C])."""
    rng = np.random.default_rng(seed)
    batch = BATCH if design.questions else BATCH_OF_SIZES
    for start in range(0, simulations, batch):
        size = min(batch, simulations - start)
        drawn, codes = answers(design, size, methods, rng)
        gaps = drawn[1:].astype(np.float64) - drawn[0]
        yield gaps, codes, stats.cluster_sums(np.ones(len(codes)), codes, design.clusters)


def sums_of(gaps: np.ndarray, codes: np.ndarray, clusters: int) -> np.ndarray:
    """Sum [n, simulations] within clusters."""
    starts = np.searchsorted(codes, np.arange(clusters))
    return np.add.reduceat(gaps, starts, axis=0)


def coverage(design: Design, simulations: int, draws: int = stats.DRAWS, seed: int = 1) -> float:
    """Measure the share of intervals that hold the true difference."""
    truth, hits = design.truth, 0
    for batch, (gaps, codes, counts) in enumerate(differences(design, simulations, seed)):
        sums = sums_of(gaps[0], codes, design.clusters)
        for interval in stats.ratio_intervals(sums, counts, draws=draws, seed=batch):
            hits += interval.low <= truth <= interval.high
    return hits / simulations


def rejections(design: Design, simulations: int, seed: int = 2) -> dict[str, float]:
    """Measure the share of p values of at most ALPHA: the sign-flip test, and McNemar's."""
    found = {"sign_flip": 0, "mcnemar": 0}
    for gaps, codes, _ in differences(design, simulations, seed):
        sums = sums_of(gaps[0], codes, design.clusters)
        tests = stats.sign_flip_tests(sums, draws=stats.DRAWS, seed=0)
        found["sign_flip"] += sum(test.p <= stats.ALPHA for test in tests)
        for column in gaps[0].T:
            found["mcnemar"] += stats.exact_mcnemar(stats.count_wins(column)) <= stats.ALPHA
    return {name: count / simulations for name, count in found.items()}


def family_errors(
    designs: list[Design], methods: int, simulations: int, seed: int = 3
) -> dict[str, float]:
    """Measure how often a table has a false finding, without and with Holm's correction.

    Every task's methods share its baseline, as in a table. Findings in designs with a gain are
    true ones and do not count.
    """
    null = [not design.gain for design in designs for _ in range(methods)]
    found = {"uncorrected": 0, "holm": 0}
    columns = [differences(d, simulations, seed + t, methods + 1) for t, d in enumerate(designs)]
    for batches in zip(*columns, strict=True):
        cells = []
        for design, (gaps, codes, _) in zip(designs, batches, strict=True):
            for m in range(methods):
                sums = sums_of(gaps[m], codes, design.clusters)
                tests = stats.sign_flip_tests(sums, draws=stats.DRAWS, seed=0)
                cells.append([test.p for test in tests])
        for table in zip(*cells, strict=True):
            for name, p_values in (("uncorrected", table), ("holm", stats.holm(table).p)):
                false = [p for p, nothing in zip(p_values, null, strict=True) if nothing]
                found[name] += min(false) <= stats.ALPHA
    return {name: count / simulations for name, count in found.items()}


def power_at_detectable(design: Design, simulations: int, seed: int = 5) -> dict[str, float]:
    """Measure the test's power where the true difference is the mean detectable effect."""

    def detectable(gain: float, number: int) -> float:
        effects = [
            stats.minimum_detectable_effect(float(se), design.clusters)
            for gaps, codes, counts in differences(replace(design, gain=gain), number, seed)
            for se in stats.ratio_se(sums_of(gaps[0], codes, design.clusters), counts)
        ]
        return float(np.mean(effects))

    gain = 0.5
    for _ in range(2):
        target = detectable(gain, min(simulations, 500))
        gain = brentq(lambda g, at=target: replace(design, gain=g).truth - at, 0.0, 5.0)
    found = replace(design, gain=gain)
    power = rejections(found, simulations, seed + 1)["sign_flip"]
    return {"difference": found.truth, "power": power}

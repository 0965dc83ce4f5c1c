"""Clustered standard errors and cluster-bootstrap intervals against independent computations."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.leaderboard import stats


def ratio_interval(values, names, draws=10_000, seed=0):
    codes, clusters = stats.cluster_codes(names)
    sums = stats.cluster_sums(np.asarray(values, dtype=float), codes, clusters)
    counts = stats.cluster_sums(np.ones(len(names)), codes, clusters)
    return stats.ratio_intervals(sums[:, None], counts, draws=draws, seed=seed)[0]


def test_cluster_codes_follow_the_names():
    codes, clusters = stats.cluster_codes(["b", "a", "b", "c"])
    assert codes.tolist() == [1, 0, 1, 2]
    assert clusters == 3


def test_clustered_se_by_hand():
    # Scores 1 1 | 0 0, mean 1/2. Deviations +-1/2; var = 4 * 1/4 / 3 = 1/3; SE_CLT^2 = 1/12.
    # Cross terms: 2 clusters x 2 ordered pairs x 1/4 = 1, over n^2 = 16. Sum 1/12 + 1/16.
    codes, clusters = stats.cluster_codes(["a", "a", "b", "b"])
    found = stats.clustered_se(np.array([1.0, 1, 0, 0]), codes, clusters)
    assert found == pytest.approx((1 / 12 + 1 / 16) ** 0.5)


def test_clustered_se_without_clustering_is_the_clt_one():
    values = np.array([1.0, 0, 1, 1, 0, 1])
    codes, clusters = stats.cluster_codes([str(i) for i in range(6)])
    expected = values.std(ddof=1) / 6**0.5
    assert stats.clustered_se(values, codes, clusters) == pytest.approx(expected)


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.sampled_from("abcdefg")), min_size=2, max_size=60
    ).filter(lambda rows: len({name for _, name in rows}) > 1)
)
@settings(max_examples=100, deadline=None)
def test_clustered_se_equals_equation_4_written_out(rows):
    values, names = [v for v, _ in rows], [n for _, n in rows]
    n, mean = len(values), sum(values) / len(values)
    clt = sum((v - mean) ** 2 for v in values) / (n - 1) / n
    cross = sum(
        (values[i] - mean) * (values[j] - mean)
        for i, j in itertools.permutations(range(n), 2)
        if names[i] == names[j]
    )
    codes, clusters = stats.cluster_codes(names)
    found = stats.clustered_se(np.array(values), codes, clusters)
    assert found**2 == pytest.approx(clt + cross / n**2, abs=1e-9)


def test_clustered_se_equals_the_hosts():
    from lmms_eval.api.metrics import clustered_stderr

    rng = np.random.default_rng(0)
    names = [str(name) for name in rng.integers(0, 40, 300)]
    values = (rng.random(300) < 0.6).astype(float)
    codes, clusters = stats.cluster_codes(names)
    expected = clustered_stderr(values.tolist(), names)
    assert stats.clustered_se(values, codes, clusters) == pytest.approx(expected)


def test_nothing_below_two_clusters():
    codes, clusters = stats.cluster_codes(["a"] * 4)
    assert stats.clustered_se(np.array([1.0, 0, 1, 0]), codes, clusters) is None
    assert ratio_interval([1.0, 0, 1, 0], ["a"] * 4) is None


def test_bootstrap_equals_the_exact_distribution():
    """5 clusters have 3125 equally likely resamples: enumerate them all."""
    sums, counts = np.array([2.0, -1, 0, 3, 1]), np.array([3.0, 1, 2, 5, 1])
    exact = np.array(
        [
            sums[list(picks)].sum() / counts[list(picks)].sum()
            for picks in itertools.product(range(5), repeat=5)
        ]
    )
    found = stats.ratio_intervals(sums[:, None], counts, draws=200_000, seed=1)[0]
    # A percentile of a discrete distribution: the tails beyond the ends hold 2.5 % each.
    assert np.mean(exact < found.low - 1e-9) <= 0.026
    assert np.mean(exact <= found.low + 1e-9) >= 0.024
    assert np.mean(exact > found.high + 1e-9) <= 0.026
    assert np.mean(exact >= found.high - 1e-9) >= 0.024


def test_bootstrap_equals_a_slow_one():
    """Plain Python with another generator and its own percentiles."""
    rng = np.random.default_rng(3)
    names = [f"v{name}" for name in rng.integers(0, 50, 400)]
    values = rng.choice([-1.0, 0, 1], 400, p=[0.1, 0.75, 0.15])
    groups = [[v for v, n in zip(values, names, strict=True) if n == g] for g in set(names)]
    dice = random.Random(7)  # noqa: S311
    means = []
    for _ in range(10_000):
        drawn = list(itertools.chain.from_iterable(dice.choices(groups, k=len(groups))))
        means.append(sum(drawn) / len(drawn))
    means.sort()
    found = ratio_interval(values, names)
    spread = means[9750] - means[250]
    assert found.low == pytest.approx(means[250], abs=0.04 * spread)
    assert found.high == pytest.approx(means[9750], abs=0.04 * spread)


def test_bootstrap_is_seeded_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    names = [str(i // 3) for i in range(300)]
    values = rng.choice([-1.0, 0, 1], 300)
    first = ratio_interval(values, names)
    assert ratio_interval(values, names) == first
    assert ratio_interval(values, names, seed=1) != first
    order = rng.permutation(300)
    assert ratio_interval(values[order], [names[i] for i in order]) == first
    monkeypatch.setattr(stats, "_BLOCK", 1000)
    assert ratio_interval(values, names) == first


def test_no_difference_gives_an_empty_interval():
    assert ratio_interval(np.zeros(20), [str(i // 2) for i in range(20)]) == stats.Interval(0, 0)


def test_macro_of_one_task_is_the_task():
    rng = np.random.default_rng(0)
    sums, counts = rng.normal(size=(30, 2)), rng.integers(1, 5, 30).astype(float)
    single = stats.ratio_intervals(sums, counts, draws=1000, seed=0)
    assert stats.mean_ratio_intervals(sums[:, :, None], counts[:, None], 1000, 0) == single


def test_macro_keeps_a_video_of_two_tasks_in_one_cluster():
    """Opposite differences of two tasks on the same videos cancel in every draw."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(30, 1))
    sums = np.stack([one, -one], axis=2)
    interval = stats.mean_ratio_intervals(sums, np.ones((30, 2)), 1000, 0)[0]
    assert interval.low == pytest.approx(0)
    assert interval.high == pytest.approx(0)


def test_macro_has_no_interval_when_a_task_is_often_left_without_samples():
    counts = np.zeros((10, 2))
    counts[:, 0] = 1
    counts[0, 1] = 1  # one cluster holds the second task: missing from 35 % of the draws
    sums = np.ones((10, 3, 2)) * (counts > 0)[:, None, :]
    assert stats.mean_ratio_intervals(sums, counts, 1000, 0) == (None, None, None)


def coverage(simulations, clusters, per_cluster, draws):
    """Share of intervals that contain the true difference of correlated paired scores."""
    rng = np.random.default_rng(20260101)
    names = [f"{i:04d}" for i in range(clusters) for _ in range(per_cluster)]
    truth = 0.05
    hits = 0
    for simulation in range(simulations):
        shift = rng.normal(truth, 0.2, clusters).repeat(per_cluster)
        values = np.clip(shift, -1, 1) + rng.normal(0, 0.3, len(names))
        interval = ratio_interval(values, names, draws=draws, seed=simulation)
        hits += interval.low <= truth <= interval.high
    return hits / simulations


def test_coverage_small():
    assert 0.90 <= coverage(300, 60, 3, 400) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("per_cluster", [1, 3, 18])
def test_coverage(per_cluster):
    assert 0.94 <= coverage(10_000, 200, per_cluster, 1000) <= 0.96

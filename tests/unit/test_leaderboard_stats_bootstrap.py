"""Cluster-bootstrap intervals against enumeration, plain loops, and themselves by other ways."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest

from tempeval.leaderboard import bootstrap, resampling, stats


def ratio_interval(values, names, draws=10_000, seed=0):
    codes, clusters = stats.cluster_codes(names)
    sums = stats.cluster_sums(np.asarray(values, dtype=float), codes, clusters)
    counts = stats.cluster_sums(np.ones(len(names)), codes, clusters)
    return stats.ratio_intervals(sums[:, None], counts, draws=draws, seed=seed)[0]


@pytest.fixture
def percentiles(monkeypatch):
    """Intervals of percentiles, however few the clusters."""
    monkeypatch.setattr(bootstrap, "STUDENTISED_BELOW", 0)


def check_ends(values, low, high):
    """The ends are percentiles of discrete values: the tails beyond them hold 2.5 % each."""
    assert np.mean(values < low - 1e-9) <= 0.026
    assert np.mean(values <= low + 1e-9) >= 0.024
    assert np.mean(values > high + 1e-9) <= 0.026
    assert np.mean(values >= high - 1e-9) >= 0.024


SUMS, COUNTS = np.array([2.0, -1, 0, 3, 1]), np.array([3.0, 1, 2, 5, 1])


def test_percentiles_equal_the_exact_distribution(percentiles):
    """5 clusters have 3125 equally likely resamples: enumerate them all."""
    picks = [list(picked) for picked in itertools.product(range(5), repeat=5)]
    exact = np.array([SUMS[p].sum() / COUNTS[p].sum() for p in picks])
    found = stats.ratio_intervals(SUMS[:, None], COUNTS, draws=200_000, seed=1)[0]
    check_ends(exact, found.low, found.high)


def error_of(sums, counts):
    """Standard error of a ratio by loops over clusters."""
    ratio, total = sum(sums) / sum(counts), sum(counts)
    gaps = [(s - ratio * n) / total for s, n in zip(sums, counts, strict=True)]
    return sum(gap**2 for gap in gaps) ** 0.5


def test_studentised_ends_equal_the_exact_distribution():
    ratio = SUMS.sum() / COUNTS.sum()
    exact = []
    for picked in itertools.product(range(5), repeat=5):
        sums, counts = SUMS[list(picked)], COUNTS[list(picked)]
        gap, error = sums.sum() / counts.sum() - ratio, error_of(sums, counts)
        # One cluster five times over: no spread at all, the most extreme t there is.
        exact.append(gap / error if error > 1e-9 else np.sign(gap) * 1e9)
    found = stats.ratio_intervals(SUMS[:, None], COUNTS, draws=200_000, seed=1)[0]
    error = error_of(SUMS, COUNTS)
    check_ends(np.array(exact), (ratio - found.high) / error, (ratio - found.low) / error)


def test_studentised_means_over_tasks_equal_the_exact_distribution():
    """4 videos, 2 tasks on all of them: 256 resamples, the error by the change a video makes."""
    sums = np.array([[2.0, 1], [-1, 0.5], [0, 2], [3, -1]])
    counts = np.array([[3.0, 1], [1, 1], [2, 2], [5, 4]])

    def mean_and_error(rows):
        totals = counts[rows].sum(axis=0)
        ratios = sums[rows].sum(axis=0) / totals
        changes = [((sums[c] - ratios * counts[c]) / totals).mean() for c in rows]
        return ratios.mean(), sum(change**2 for change in changes) ** 0.5

    mean, error = mean_and_error([0, 1, 2, 3])
    exact = []
    for picked in itertools.product(range(4), repeat=4):
        drawn, own = mean_and_error(list(picked))
        exact.append((drawn - mean) / own if own > 1e-9 else np.sign(drawn - mean) * 1e9)
    # Among 4 videos more than 2.5 % of the draws are one video alone; look at narrower tails.
    level = 0.8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "LEVEL", level)
        found = stats.mean_ratio_intervals(sums[:, None], counts, 200_000, 1)[0]
    low, high = (mean - found.high) / error, (mean - found.low) / error
    assert np.mean(np.array(exact) < low - 1e-9) <= 0.101
    assert np.mean(np.array(exact) <= low + 1e-9) >= 0.099
    assert np.mean(np.array(exact) > high + 1e-9) <= 0.101
    assert np.mean(np.array(exact) >= high - 1e-9) >= 0.099


@pytest.mark.parametrize("clusters", [50, 150])
def test_intervals_equal_slow_ones(clusters):
    """Plain Python with another generator and its own percentiles, of questions one by one."""
    rng = np.random.default_rng(3)
    names = [f"v{name}" for name in rng.integers(0, clusters, 8 * clusters)]
    values = rng.choice([-1.0, 0, 1], len(names), p=[0.1, 0.75, 0.15])
    groups = [[v for v, n in zip(values, names, strict=True) if n == g] for g in sorted(set(names))]
    dice = random.Random(7)  # noqa: S311

    def mean_and_error(drawn):
        mean = sum(sum(group) for group in drawn) / sum(len(group) for group in drawn)
        return mean, error_of([sum(group) for group in drawn], [len(group) for group in drawn])

    mean, error = mean_and_error(groups)
    draws = [mean_and_error(dice.choices(groups, k=len(groups))) for _ in range(6000)]
    if clusters < stats.STUDENTISED_BELOW:
        values_of_draws = sorted(mean - (drawn - mean) / own * error for drawn, own in draws)
    else:
        values_of_draws = sorted(drawn for drawn, _ in draws)
    low, high = values_of_draws[150], values_of_draws[5850]
    found = ratio_interval(values, names)
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))


def test_kinds_of_clusters_draw_from_the_same_distribution(monkeypatch):
    """640 videos of 3 questions have few sums; the interval with and without joining them."""
    rng = np.random.default_rng(0)
    names = [f"{i // 3:04d}" for i in range(1920)]
    values = rng.choice([-1.0, 0, 1], 1920, p=[0.1, 0.75, 0.15])
    joined = ratio_interval(values, names, draws=40_000)
    monkeypatch.setattr(resampling, "_PER_KIND", 10_000)
    apart = ratio_interval(values, names, draws=40_000)
    assert joined != apart
    width = apart.high - apart.low
    assert joined.low == pytest.approx(apart.low, abs=0.03 * width)
    assert joined.high == pytest.approx(apart.high, abs=0.03 * width)


def test_kinds_join_equal_clusters_only():
    counts = np.repeat([[1.0, 0], [0, 2], [1, 2]], 100, axis=0)
    sums = np.zeros((300, 2))
    sums[:30, 0] = 1
    sums[100:120, 1] = -1
    parts = resampling.split_by_tasks(counts)
    assert sorted(len(rows) for rows, _ in parts) == [100, 100, 100]
    kinds = resampling.join_kinds(sums, counts, parts)
    sign = -1 if kinds.negated else 1
    rows = np.column_stack([kinds.counts, sign * kinds.sums, kinds.sizes])
    assert sorted(rows.tolist()) == [
        [0, 2, 0, -1, 20],
        [0, 2, 0, 0, 80],
        [1, 0, 0, 0, 70],
        [1, 0, 1, 0, 30],
        [1, 2, 0, 0, 100],
    ]
    assert resampling.join_kinds(-sums, counts, parts).negated != kinds.negated


@pytest.mark.parametrize("clusters", [40, 150, 900])
def test_bootstrap_is_seeded_and_blocks_do_not_matter(monkeypatch, clusters):
    """Few clusters, clusters drawn one by one, and kinds of clusters."""
    rng = np.random.default_rng(0)
    size = 3 * clusters
    names = [f"{i // 3:03d}" for i in range(size)]
    values = rng.choice([-1.0, 0, 1], size)
    first = ratio_interval(values, names, draws=2000)
    assert ratio_interval(values, names, draws=2000) == first
    assert ratio_interval(values, names, draws=2000, seed=1) != first
    order = rng.permutation(size)
    shuffled = ratio_interval(values[order], [names[i] for i in order], draws=2000)
    assert shuffled == first
    monkeypatch.setattr(resampling, "_BLOCK", 1000)
    monkeypatch.setattr(resampling, "_PIECE", 500)
    again = ratio_interval(values, names, draws=2000)
    assert again.low == pytest.approx(first.low, abs=1e-12)
    assert again.high == pytest.approx(first.high, abs=1e-12)


@pytest.mark.parametrize("clusters", [40, 150, 900])
def test_changing_places_mirrors_the_interval(clusters):
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0, 1], 3 * clusters, p=[0.1, 0.7, 0.2])
    names = [str(i // 3) for i in range(3 * clusters)]
    found, mirrored = (ratio_interval(side, names, draws=2000) for side in (values, -values))
    assert mirrored.low == pytest.approx(-found.high, abs=1e-12)
    assert mirrored.high == pytest.approx(-found.low, abs=1e-12)


def test_joined_kinds_do_not_depend_on_the_names_of_clusters():
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0, 1], 900)
    names = rng.permutation(900).astype(str).tolist()
    assert ratio_interval(values, names) == ratio_interval(values, sorted(names))


def test_a_method_does_not_depend_on_the_others():
    """Of three methods one has scores of any kind, so its clusters are drawn one by one."""
    rng = np.random.default_rng(0)
    sums = rng.choice([-1.0, 0, 1], (300, 3))
    sums[:, 1] += rng.normal(size=300)
    together = stats.ratio_intervals(sums, np.ones(300), draws=1000, seed=0)
    for m, interval in enumerate(together):
        (own,) = stats.ratio_intervals(sums[:, [m]], np.ones(300), draws=1000, seed=0)
        assert own.low == pytest.approx(interval.low, abs=1e-12)
        assert own.high == pytest.approx(interval.high, abs=1e-12)


@pytest.mark.parametrize("clusters", [10, 200])
def test_no_difference_gives_an_empty_interval(clusters):
    names = [str(i // 2) for i in range(2 * clusters)]
    found = ratio_interval(np.zeros(2 * clusters), names)
    assert (found.low, found.high) == (0, 0)
    found = ratio_interval(np.ones(2 * clusters), names)
    assert (found.low, found.high) == (1, 1)
    assert found.kind == ("studentised" if clusters == 10 else "percentile")


@pytest.mark.parametrize(("wins", "studentised"), [(2, False), (12, True)])
def test_too_few_differing_clusters_for_t_give_percentiles(monkeypatch, wins, studentised):
    """If 2 of 60 differ, 13 % of the draws have neither, and t has no lower end."""
    names = [f"{i:02d}" for i in range(60)]
    values = np.zeros(60)
    values[:wins] = 1
    found = ratio_interval(values, names)
    assert np.isfinite([found.low, found.high]).all()
    monkeypatch.setattr(bootstrap, "STUDENTISED_BELOW", 0)
    plain = ratio_interval(values, names)
    assert ((plain.low, plain.high) != (found.low, found.high)) == studentised
    assert found.kind == ("studentised" if studentised else "percentile_fallback")
    assert plain.kind == "percentile"


def test_the_other_direction_is_the_mirror_image():
    values = np.zeros(60)
    values[:2] = 1
    names = [f"{i:02d}" for i in range(60)]
    up, down = ratio_interval(values, names), ratio_interval(-values, names)
    assert (up.low, up.high, up.kind) == (-down.high, -down.low, down.kind)
    assert up.low == 0
    assert str(down.high) == "0.0", "not minus zero, and no noise"


def test_studentised_intervals_are_wider_for_few_clusters(monkeypatch):
    values = np.random.default_rng(0).normal(size=12)
    names = [str(i) for i in range(12)]
    found = ratio_interval(values, names)
    monkeypatch.setattr(bootstrap, "STUDENTISED_BELOW", 0)
    plain = ratio_interval(values, names)
    assert found.high - found.low > 1.1 * (plain.high - plain.low)


def test_nothing_below_two_clusters():
    assert ratio_interval([1.0, 0, 1, 0], ["a"] * 4) is None


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


def test_macro_of_tasks_with_some_videos_in_common_equals_a_slow_one():
    """Videos of the first, the second, and both tasks, in mixed order; scores of any kind."""
    rng = np.random.default_rng(0)
    counts = rng.choice([0.0, 1, 2], (200, 2))
    counts[counts.sum(axis=1) == 0] = 1
    sums = rng.normal(0.1, 1, (200, 1, 2)) * counts[:, None]
    found = stats.mean_ratio_intervals(sums, counts, 10_000, 0)[0]
    means = []
    for _ in range(10_000):
        picks = rng.integers(0, 200, 200)
        means.append(np.mean(sums[picks, 0].sum(axis=0) / counts[picks].sum(axis=0)))
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))


def test_macro_has_no_interval_when_a_task_is_often_left_without_samples():
    counts = np.zeros((10, 2))
    counts[:, 0] = 1
    counts[0, 1] = 1  # one cluster holds the second task: missing from 35 % of the draws
    sums = np.ones((10, 3, 2)) * (counts > 0)[:, None, :]
    assert stats.mean_ratio_intervals(sums, counts, 1000, 0) == (None, None, None)


def a_task(rng, binary, methods=10, samples=10_000):
    base = (rng.random(samples) < 0.6).astype(float)
    if binary:
        scores = np.abs(base[:, None] - (rng.random((samples, methods)) < 0.2))
    else:
        scores = base[:, None] + rng.normal(0, 0.1, (samples, methods))
    return scores, base, [f"{i:05d}" for i in range(samples)]


def test_right_or_wrong_answers_to_many_videos_are_quick():
    """10 cells of 10,000 clusters at 10,000 draws; measured 0.1 s."""
    part = a_task(np.random.default_rng(0), binary=True)
    start = time.process_time()
    stats.paired(*part)
    assert time.process_time() - start < 4


@pytest.mark.slow
def test_100_cells_of_10_000_clusters_are_quick():
    """Scores of any kind, so that no clusters are alike; measured 12 s."""
    rng = np.random.default_rng(0)
    parts = [a_task(rng, binary=False) for _ in range(10)]
    start = time.process_time()
    for part in parts:
        stats.paired(*part)
    assert time.process_time() - start < 60

"""Standard errors, corrections, effects, counts, and the comparison that joins them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from tempeval.leaderboard import stats

VALUES = st.lists(
    st.tuples(st.floats(-5, 5), st.sampled_from("abcdefg")), min_size=2, max_size=60
).filter(lambda rows: len({name for _, name in rows}) > 1)
# Right or wrong answers of baseline and method, with their videos.
ANSWERS = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.booleans(), st.booleans()), min_size=4, max_size=60
).filter(lambda rows: len({name for name, _, _ in rows}) > 1)
P_VALUES = st.lists(st.none() | st.floats(1e-9, 1), max_size=12)


def columns(rows):
    names = [name for name, _, _ in rows]
    base, method = (np.array([row[i] for row in rows], dtype=float) for i in (1, 2))
    return method, base, names


def compare(rows, **settings):
    method, base, names = columns(rows)
    return stats.paired(method[:, None], base, names, **{"draws": 500, **settings})[0]


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


def test_without_clustering_both_errors_are_the_clt_one():
    values = np.array([1.0, 0, 1, 1, 0, 1])
    codes, clusters = stats.cluster_codes([str(i) for i in range(6)])
    expected = values.std(ddof=1) / 6**0.5
    assert stats.clustered_se(values, codes, clusters) == pytest.approx(expected)
    assert stats.ratio_se(values[:, None], np.ones(6))[0] == pytest.approx(expected)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_clustered_se_equals_equation_4_written_out(rows):
    values, names = [v for v, _ in rows], [n for _, n in rows]
    n, mean = len(values), sum(values) / len(values)
    clt = sum((v - mean) ** 2 for v in values) / (n - 1) / n
    pairs = [
        (values[i] - mean) * (values[j] - mean)
        for i, j in itertools.permutations(range(n), 2)
        if names[i] == names[j]
    ]
    codes, clusters = stats.cluster_codes(names)
    found = stats.clustered_se(np.array(values), codes, clusters)
    assert found**2 == pytest.approx(max(0, clt + sum(pairs) / n**2), abs=1e-9)
    # With C/(C-1): the diagonal is in the same sum.
    squares = sum((v - mean) ** 2 for v in values)
    expected = (squares + sum(pairs)) / n**2 * clusters / (clusters - 1)
    sums = stats.cluster_sums(np.array(values), codes, clusters)
    counts = stats.cluster_sums(np.ones(n), codes, clusters)
    assert stats.ratio_se(sums[:, None], counts)[0] ** 2 == pytest.approx(expected, abs=1e-9)


def test_clustered_se_equals_the_hosts():
    from lmms_eval.api.metrics import clustered_stderr

    rng = np.random.default_rng(0)
    names = [str(name) for name in rng.integers(0, 40, 300)]
    values = (rng.random(300) < 0.6).astype(float)
    codes, clusters = stats.cluster_codes(names)
    expected = clustered_stderr(values.tolist(), names)
    assert stats.clustered_se(values, codes, clusters) == pytest.approx(expected)


def test_the_factor_makes_the_variance_unbiased_for_clusters_of_equal_size():
    """5 clusters of 4 whose means vary with 1 and questions with 1: variance (1 + 1/4) / 5."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 20_000)) + rng.normal(size=(4, 5, 20_000)).mean(axis=0)
    errors = stats.ratio_se(4 * values, np.full(5, 4.0))
    assert np.mean(errors**2) == pytest.approx((1 + 1 / 4) / 5, rel=0.02)


@given(P_VALUES)
def test_holm_equals_its_definition(p_values):
    """Reject in ascending order while p <= alpha / (tests left); compare at every alpha."""
    found = stats.holm(p_values)
    known = sorted(p for p in p_values if p is not None)
    assert found.tests == len(known)
    assert found.left_out == len(p_values) - len(known)
    assert [p is None for p in found.p] == [p is None for p in p_values]
    for alpha in (0.001, 0.05, 0.3, 0.99):
        rejected = 0
        for i, p in enumerate(known):
            if p > alpha / (len(known) - i):
                break
            rejected += 1
        # A float may lie on either side of a bound that is met exactly.
        assert sum(p is not None and p <= alpha * (1 - 1e-12) for p in found.p) <= rejected
        assert sum(p is not None and p <= alpha * (1 + 1e-12) for p in found.p) >= rejected


def test_holm_by_hand():
    assert stats.holm([0.01, None, 0.04, 0.03]).p == pytest.approx([0.03, None, 0.06, 0.06])
    assert stats.holm([0.5, 0.5]).p == (1.0, 1.0)
    assert stats.holm([]) == stats.Holm((), 0, 0)


def test_mcnemar_by_hand():
    # 1 of 6: 2 * (1 + 6) / 64. Even and empty: nothing speaks against equality.
    assert stats.exact_mcnemar(stats.Counts(5, 40, 1)) == pytest.approx(14 / 64)
    assert stats.exact_mcnemar(stats.Counts(3, 0, 3)) == 1
    assert stats.exact_mcnemar(stats.Counts(0, 9, 0)) == 1
    assert 0 < stats.exact_mcnemar(stats.Counts(10_000, 0, 0)) < 1e-300


def test_detectable_effect():
    assert stats.minimum_detectable_effect(0.01, 10**6) == pytest.approx(0.02801585, rel=1e-4)
    few = stats.minimum_detectable_effect(0.01, 10)
    assert few == pytest.approx(0.01 * (t.ppf(0.975, 9) + t.ppf(0.8, 9)))
    # A normal estimate with this true effect passes the two-sided bound in 80 % of the cases.
    assert 1 - norm.cdf(1.959964, loc=2.801585) == pytest.approx(0.8, abs=1e-5)
    assert stats.minimum_detectable_effect(0.0, 10) is None


@given(st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.5]), min_size=1))
def test_wins_are_counted_one_by_one(gaps):
    counted = stats.count_wins(np.array(gaps))
    assert counted.wins == len([gap for gap in gaps if gap > 0])
    assert counted.ties == len([gap for gap in gaps if gap == 0])
    assert counted.losses == len([gap for gap in gaps if gap < 0])
    lower = stats.count_wins(np.array(gaps), higher_is_better=False)
    assert (lower.wins, lower.losses) == (counted.losses, counted.wins)


@given(ANSWERS)
@settings(max_examples=60, deadline=None)
def test_a_comparison_holds_together(rows):
    found = compare(rows)
    method, base, names = columns(rows)
    assert found.difference == pytest.approx(float(np.mean(method - base)))
    assert 0 < found.test.p <= 1
    assert found.interval.low - 1e-12 <= found.difference <= found.interval.high + 1e-12
    assert (found.n, found.clusters) == (len(rows), len(set(names)))
    assert (found.mcnemar is None) == (len(set(names)) < len(rows))
    assert (found.detectable is None) == (found.se == 0)
    # Rows in another order, or after an unlike method: the same numbers.
    assert compare(rows[::-1]) == found
    other = 1 - method
    both = stats.paired(np.stack([other, method], axis=1), base, names, draws=500)
    assert both[1].interval.low == pytest.approx(found.interval.low, abs=1e-12)
    assert both[1].test == found.test
    # Names that sort alike: the same numbers.
    assert compare([(f"video {name}", a, b) for name, a, b in rows]) == found


@given(ANSWERS, st.permutations("abcdefghij"))
@settings(max_examples=60, deadline=None)
def test_names_of_clusters_do_not_matter(rows, names):
    """Other draws, so other ends, but the same everything else."""
    other = dict(zip("abcdefghij", names, strict=True))
    found, again = compare(rows), compare([(other[name], a, b) for name, a, b in rows])
    assert again.difference == found.difference
    assert again.test.p == pytest.approx(found.test.p)
    assert again.se == pytest.approx(found.se)
    assert again.counts == found.counts


@given(ANSWERS)
@settings(max_examples=60, deadline=None)
def test_changing_places_mirrors_everything(rows):
    found, mirrored = compare(rows), compare([(name, b, a) for name, a, b in rows])
    assert mirrored.difference == -found.difference
    assert mirrored.interval.low == pytest.approx(-found.interval.high, abs=1e-12)
    assert mirrored.interval.high == pytest.approx(-found.interval.low, abs=1e-12)
    assert mirrored.se == pytest.approx(found.se)
    assert mirrored.test == found.test
    assert (mirrored.counts.wins, mirrored.counts.losses) == (
        found.counts.losses,
        found.counts.wins,
    )


def test_mcnemar_is_only_given_for_one_right_or_wrong_answer_each():
    base, method, names = np.array([1.0, 1, 0, 0]), np.array([0.0, 1, 1, 1]), list("abcd")
    (found,) = stats.paired(method[:, None], base, names)
    assert found.mcnemar == pytest.approx(found.test.p)
    (found,) = stats.paired(method[:, None] / 2, base, names)
    assert found.mcnemar is None
    (found,) = stats.paired(method[:, None], base, list("abca"))
    assert found.mcnemar is None


def test_lower_may_be_better():
    base, method = np.array([[1.0], [1.0], [0.0]])[:, 0], np.array([[0.0], [1.0], [0.0]])
    (found,) = stats.paired(method, base, list("abc"), higher_is_better=False)
    assert found.difference == pytest.approx(-1 / 3)
    assert found.counts == stats.Counts(wins=1, ties=2, losses=0)


def test_one_cluster_has_a_difference_and_nothing_else():
    (found,) = stats.paired(np.array([[1.0], [1.0]]), np.array([0.0, 1.0]), ["a", "a"])
    assert found.difference == 0.5
    assert (found.se, found.interval, found.test, found.mcnemar, found.detectable) == (None,) * 5
    assert found.counts == stats.Counts(1, 1, 0)


def test_scores_that_are_not_numbers_are_named():
    bad = np.array([[0.0, np.nan], [1.0, np.inf]])
    with pytest.raises(stats.NotFinite, match=r"2 scores of method 1 are NaN or infinite"):
        stats.paired(bad, np.zeros(2), ["a", "b"])
    with pytest.raises(stats.NotFinite, match="1 scores of the baseline"):
        stats.paired(np.zeros((2, 1)), np.array([0.0, np.nan]), ["a", "b"])


def test_macro_weighs_tasks_alike_and_keeps_videos_of_two_tasks_together():
    rng = np.random.default_rng(0)
    # 30 videos; the second task asks the same ones, with opposite results: nothing is left.
    names = [f"v{i:02d}" for i in range(30)]
    base, method = np.full(30, 0.5), rng.random(30)
    (found,) = stats.paired_macro(
        [(method[:, None], base, names), (1 - method[:, None], base, names)], draws=500
    )
    assert found.difference == pytest.approx(0)
    assert found.se == pytest.approx(0)
    assert found.interval.high == pytest.approx(0)
    assert found.clusters == 30
    assert found.n == 60
    # Other videos: the variances add up, each with weight 1/4.
    others = [f"w{i:02d}" for i in range(30)]
    parts = [(method[:, None], base, names), (rng.random((30, 1)), base, others)]
    (found,) = stats.paired_macro(parts, draws=500)
    single = [stats.paired(*part, draws=500)[0] for part in parts]
    assert found.difference == pytest.approx((single[0].difference + single[1].difference) / 2)
    expected = (single[0].se ** 2 + single[1].se ** 2) / 4
    # The factor is 60/59 for all clusters together, 30/29 for each task's.
    assert found.se**2 == pytest.approx(expected * (60 / 59) / (30 / 29))
    assert found.clusters == 60


def test_macro_of_one_task_is_the_task():
    rng = np.random.default_rng(0)
    part = rng.random((40, 2)), rng.random(40), [str(i // 2) for i in range(40)]
    assert stats.paired_macro([part], draws=500) == stats.paired(*part, draws=500)

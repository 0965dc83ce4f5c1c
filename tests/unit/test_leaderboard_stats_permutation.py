"""The sign-flip test against enumeration in loops, McNemar's test, and itself by other ways."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tempeval.leaderboard import permutation, stats


def flip(sums, draws=10_000, seed=0):
    column = np.asarray(sums, dtype=float)[:, None]
    return stats.sign_flip_tests(column, draws=draws, seed=seed)[0]


def slow(sums):
    """Share of all 2^C patterns at least as extreme, pattern by pattern, in whole numbers."""
    extreme = 0
    for signs in itertools.product((-1, 1), repeat=len(sums)):
        total = sum(sign * size for sign, size in zip(signs, sums, strict=True))
        extreme += abs(total) >= abs(sum(sums))
    return extreme / 2 ** len(sums)


@given(st.lists(st.integers(-6, 6), min_size=2, max_size=9))
@settings(max_examples=150, deadline=None)
def test_whole_sums_are_exact(sums):
    found = flip(sums)
    assert found.exact
    assert found.p == pytest.approx(slow(sums))
    # Their unit does not matter, nor does rounding in it, nor order, nor the side.
    assert flip([0.1 * size for size in sums]).p == pytest.approx(slow(sums))
    assert flip([-size for size in reversed(sums)]) == found


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9))
@settings(max_examples=100, deadline=None)
def test_enumeration_is_exact(sums):
    """Thousandths of pi: no whole multiples once a prime is added, but exact ties."""
    numbers = np.array([*sums, 997.0])
    sizes = np.abs(numbers[numbers != 0]) * math.pi
    found = permutation._by_enumeration(sizes, numbers.sum() * math.pi)
    assert found == pytest.approx(slow([*sums, 997]))


def test_scores_of_any_kind_are_enumerated_while_patterns_are_few():
    sums = np.random.default_rng(0).normal(0.3, 1, 13)
    found = flip(sums)
    assert found.exact
    assert found.p == pytest.approx(slow(sums.tolist()))
    assert not flip(sums, draws=4095).exact
    assert flip(sums, draws=4096).exact
    # Clusters without a difference are no patterns.
    assert flip(np.concatenate([sums, np.zeros(500)])) == found


def test_drawn_patterns_agree_with_exact_ones():
    rng = np.random.default_rng(1)
    sums = rng.integers(-3, 5, 60).astype(float)
    exact = flip(sums)
    assert exact.exact
    (drawn,) = permutation._by_draws(sums[:, None], 100_000, 0)
    error = (exact.p * (1 - exact.p) / 100_000) ** 0.5
    assert drawn == pytest.approx(exact.p, abs=4 * error)


def test_drawn_patterns_count_ties_and_the_one_found():
    """Equal sums, not whole in binary: all patterns of equal sum must count as equal."""
    sums = np.full((40, 1), 0.1)
    sums[:17] *= -1
    exact = flip(sums[:, 0]).p
    assert permutation._by_draws(sums, 50_000, 3)[0] == pytest.approx(exact, abs=0.01)
    # b + 1 of m + 1: never 0.
    huge = np.random.default_rng(0).uniform(1, 2, 50)
    found = flip(huge, draws=999)
    assert found == stats.SignFlip(p=1 / 1000, exact=False)


def test_blocks_do_not_matter_and_seeds_do(monkeypatch):
    sums = np.random.default_rng(0).normal(0.1, 1, 100)
    first = flip(sums, draws=1000)
    assert not first.exact
    assert flip(sums, draws=1000) == first
    assert flip(sums, draws=1000, seed=1) != first
    monkeypatch.setattr(permutation, "_BLOCK", 700)
    assert flip(sums, draws=1000) == first


def test_a_method_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    sums = rng.normal(0.1, 1, (100, 3))
    sums[:, 1] = rng.integers(-2, 3, 100)
    together = stats.sign_flip_tests(sums, draws=1000, seed=0)
    assert together == tuple(flip(column, draws=1000) for column in sums.T)
    assert [test.exact for test in together] == [False, True, False]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_one_question_per_cluster_is_mcnemar(wins, losses, ties):
    sums = [1.0] * wins + [-1.0] * losses + [0.0] * (ties + 2)
    expected = stats.exact_mcnemar(stats.Counts(wins, ties + 2, losses))
    assert flip(sums).p == pytest.approx(expected)


def test_far_tails_are_small_and_not_zero():
    # 30 of 30: two patterns of 2^30.
    assert flip([2.0, *[1.0] * 29]).p == pytest.approx(2 / 2**30)
    assert 0 < flip([3.0] + [1.0] * 5000).p < 1e-300


def test_no_difference_is_no_evidence():
    assert flip([0.0, 0.0, 0.0]) == stats.SignFlip(1.0, exact=True)
    assert flip([1.0, -1.0, 0.0]) == stats.SignFlip(1.0, exact=True)


def test_one_cluster_has_no_test():
    assert stats.sign_flip_tests(np.ones((1, 2)), draws=100, seed=0) == (None, None)


def test_dividing_by_the_error_changes_no_p_value():
    """The studentised statistic, enumerated: the same patterns are as extreme."""
    sums = np.array([3.0, -1, 4, 1, -5, 9, 2, 6])
    signs = np.array(list(itertools.product((-1, 1), repeat=8)))
    flipped = signs * sums

    def studentised(rows):
        return np.abs(rows.sum(axis=1)) / rows.std(axis=1, ddof=1)

    share = np.mean(studentised(flipped) >= studentised(sums[None]) - 1e-12)
    assert flip(sums).p == pytest.approx(share)


def test_many_clusters_approach_the_normal_distribution():
    sums = np.random.default_rng(0).integers(-8, 9, 3000).astype(float)
    sums[:40] = 8
    z = abs(sums.sum()) / np.sqrt(np.sum(sums**2))
    found = flip(sums)
    assert found.exact
    assert found.p == pytest.approx(2 * norm.sf(z), rel=0.02)


def test_distributions_that_would_take_too_long_are_drawn(monkeypatch):
    sums = np.random.default_rng(0).integers(-50, 51, 400).astype(float)
    exact = flip(sums)
    assert exact.exact
    monkeypatch.setattr(permutation, "_MOST_WORK", 100_000)
    drawn = flip(sums)
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact.p, abs=0.02)
    # A smallest step that would take an endless table.
    assert not flip([1e-12, *np.arange(1.0, 40.0)]).exact

"""Time and memory of a large leaderboard, in a process of its own (slow).

The whole size is 10 methods x 10 tasks x 10,000 samples; here it is a fifth of it and a tenth.
"""

from __future__ import annotations

import pytest
from build_speed import build_speed
from synthetic_runs import Shape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_200_000_rows_in_a_fifth_of_a_minute_and_time_grows_as_rows_do(tmp_path):
    half, whole = (
        build_speed(tmp_path / str(samples), Shape(samples=samples)) for samples in (1000, 2000)
    )
    assert half["compared"] == whole["compared"] == 9
    # Processor time, because other tests run beside this one.
    assert whole["cpu"] < 2 * 12
    assert whole["cpu"] < 2.2 * half["cpu"]
    assert whole["megabytes"] < 1000


def test_graded_scores_of_single_questions_take_no_more_than_the_draws(tmp_path):
    """Nothing can be joined here: every question is a cluster, and no two sums are equal."""
    shape = Shape(methods=5, tasks=5, samples=2000, per_video=1, graded=True, shared_videos=False)
    found = build_speed(tmp_path, shape)
    assert found["cpu"] < 60
    assert found["megabytes"] < 1000

"""Time and memory of a large leaderboard, in a process of its own (slow).

The whole size is 10 methods x 10 tasks x 10,000 samples; here it is a fifth of it and a tenth.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from synthetic_runs import Shape, write_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CODE = """
import json, pathlib, re, resource, sys, time
from tempeval.leaderboard import build
began = time.perf_counter()
summary = build([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))
seconds = time.perf_counter() - began
own, children = (
    resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
)
# Not ru_maxrss for the process itself: it begins at the peak of the process that started it.
peak = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())
print(json.dumps({
    "compared": summary.compared,
    "seconds": seconds,
    "cpu": sum(use.ru_utime + use.ru_stime for use in (own, children)),
    "megabytes": (int(peak[1]) + children.ru_maxrss) / 1000,
}))
"""


def measured(tmp_path, shape):
    root = tmp_path / f"{shape.samples}"
    write_runs(root / "runs", shape)
    command = [sys.executable, "-c", CODE, str(root / "runs"), str(root / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_200_000_rows_in_a_fifth_of_a_minute_and_time_grows_as_rows_do(tmp_path):
    half, whole = (measured(tmp_path, Shape(samples=samples)) for samples in (1000, 2000))
    assert half["compared"] == whole["compared"] == 9
    # Processor time, because other tests run beside this one.
    assert whole["cpu"] < 2 * 12
    assert whole["cpu"] < 2.2 * half["cpu"]
    assert whole["megabytes"] < 1000


def test_graded_scores_of_single_questions_take_no_more_than_the_draws(tmp_path):
    """Nothing can be joined here: every question is a cluster, and no two sums are equal."""
    shape = Shape(methods=5, tasks=5, samples=2000, per_video=1, graded=True, shared_videos=False)
    found = measured(tmp_path, shape)
    assert found["cpu"] < 60
    assert found["megabytes"] < 1000

"""Build a leaderboard of synthetic runs in a process of its own, and measure it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from synthetic_runs import Shape, write_runs

if TYPE_CHECKING:
    from pathlib import Path

_CODE = """
import json, os, pathlib, re, resource, sys, time
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
    "megabytes": (int(peak[1]) + os.cpu_count() * children.ru_maxrss) / 1000,
}))
"""


def build_speed(folder: Path, shape: Shape) -> dict[str, Any]:
    """Write runs and build their leaderboard with the defaults.

    Returns:
        `compared` runs, wall and processor `seconds` and `cpu`, and `megabytes`: the peak of the
        process plus, for every core, that of its largest reader process.
    """
    write_runs(folder / "runs", shape)
    command = [sys.executable, "-c", _CODE, str(folder / "runs"), str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found

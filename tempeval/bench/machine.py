"""Where and under which load a benchmark ran."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tempeval import __version__

PACKAGES = ("torch", "transformers", "lmms_eval", "qwen_vl_utils", "av", "decord", "numpy")
#: Share of the cores that, busy before a benchmark starts, makes its ratios unreliable.
BUSY_SHARE = 0.6


def machine_facts(device: str, threads: int) -> dict[str, Any]:
    """Return processor, cores, threads and versions."""
    cuda = torch.device(device).type == "cuda"
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "threads": threads,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {"tempeval": __version__} | {name: version(name) for name in PACKAGES},
    }


def cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Return the load average over one minute, or None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def is_busy(load: float | None) -> bool:
    """Say whether a load average makes ratios unreliable."""
    return load is not None and load > BUSY_SHARE * cores()


def timestamp() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class OtherWork:
    """Measures how many cores other processes used meanwhile (Linux; elsewhere None).

    A load average counts this process too and lags by a minute; this does neither.
    """

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.monotonic(), _busy_seconds(), own_seconds()

    def cores(self) -> float | None:
        """Return the mean number of cores that other processes used since construction."""
        busy, wall = _busy_seconds(), time.monotonic() - self._wall
        if busy is None or self._busy is None or wall <= 0:
            return None
        return round(max(busy - self._busy - (own_seconds() - self._own), 0.0) / wall, 2)


def _busy_seconds() -> float | None:
    """Return the seconds that all cores together were not idle."""
    with contextlib.suppress(OSError, ValueError):
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        ticks = [int(field) for field in fields]
        # user, nice, system, idle, iowait, irq, softirq, steal
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return None


def own_seconds() -> float:
    """Return processor seconds of this process and of its children that have ended."""
    times = os.times()  # of children, to 10 ms; this process's own clock is finer
    return time.process_time() + times.children_user + times.children_system


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""Wall time and memory as the device sees them."""

from __future__ import annotations

import time

import torch


def now(device: torch.device) -> float:
    """Return seconds on a monotonic clock, after everything queued on the device has run."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak device memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak device memory in bytes since the last reset; None on a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.max_memory_allocated(device))

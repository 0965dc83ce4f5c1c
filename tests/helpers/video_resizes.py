"""Resize functions for decoding processes: ordinary ones, and ones that misbehave on purpose."""

from __future__ import annotations

import os
import signal
import sys


def halve(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return height // 2, width // 2


def one_pixel_if_torch_is_loaded(height: int, width: int, num_frames: int) -> tuple[int, int]:
    loaded = {"torch", "transformers", "lmms_eval"} & set(sys.modules)
    return (1, 1) if loaded else (height, width)


def crash(height: int, width: int, num_frames: int) -> tuple[int, int]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return height, width


def fail(height: int, width: int, num_frames: int) -> tuple[int, int]:
    raise ZeroDivisionError("a bug in resize")


def impossible(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return 0, width

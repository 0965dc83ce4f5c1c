"""Ctrl-C (or what ends a job) at a moment when nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

from tempeval.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Interrupted(RunFailed):
    """A training that was stopped between two steps; all it did is in a checkpoint.

    Args:
        step: optimiser steps taken.
        steps: of the whole training.
        out: its folder.
    """

    def __init__(self, step: int, steps: int, out: Path) -> None:
        self.step, self.steps, self.out = step, steps, out
        super().__init__(
            f"stopped after step {step} of {steps}; everything is in {str(out)!r}. Go on with the "
            "same command and --resume"
        )

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, int, Path]]:
        return type(self), (self.step, self.steps, self.out)


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], bool]]:
    """Note SIGINT, SIGTERM and SIGHUP instead of ending at once; a second one ends at once.

    One that is ignored, as `nohup` has it, stays so.

    Outside the main thread, where signals cannot be handled, nothing is noted.

    Yields:
        A function that says whether one came.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[Any, Any] = {name: signal.getsignal(name) for name in names}
    before = {name: how for name, how in before.items() if how is not signal.SIG_IGN}

    def note(name: int, frame: Any) -> None:
        came.set()
        for each in before:
            signal.signal(each, before[each])

    for name in before:
        signal.signal(name, note)
    try:
        yield came.is_set
    finally:
        for name in before:
            signal.signal(name, before[name])

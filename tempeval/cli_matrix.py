"""What the commands that evaluate share: options, progress, and an end that can be interrupted."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tempeval.console import say

if TYPE_CHECKING:
    from tempeval.matrix import RunOptions

INTERRUPTED = 130
#: How long after a Ctrl-C another one is ignored.
CLEAN_UP_SECONDS = 3.0

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier runs in the folder.")]


def evaluate(options: "RunOptions") -> list[Path]:
    """Run a matrix and return its run folders; Ctrl-C ends with a line that says how to go on."""
    try:
        with _patient_interrupts():
            from tempeval.accepted import load_accepting
            from tempeval.run import run_matrix

            return run_matrix(options, report=report, load=load_accepting)
    except KeyboardInterrupt:
        # All is cleaned up; another Ctrl-C would only break the end of the interpreter.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("\ninterrupted; run the same command to go on where it stopped", error=True)
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _patient_interrupts() -> Iterator[None]:
    """Ignore a Ctrl-C that comes soon after another: it would interrupt the cleaning up."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # somebody decided otherwise, such as `nohup` or an embedding program
        return
    last = -CLEAN_UP_SECONDS

    def handle(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > CLEAN_UP_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def report(line: str) -> None:
    """Print a line of progress; of several processes, only the first does."""
    if os.environ.get("RANK", "0") == "0":
        say(line)

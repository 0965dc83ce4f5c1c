"""What the commands that evaluate share: options, progress, and an end that can be interrupted."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tempeval.cli_options import flag
from tempeval.console import say

if TYPE_CHECKING:
    from tempeval.run.spec import RunSpec

#: What ends a command on purpose: Ctrl-C, and what SLURM or a closed terminal sends.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The terminal has just shown `^C`.
NEW_LINE = "\n"
#: How long after such a signal another one is ignored.
CLEAN_UP_SECONDS = 3.0

Out = Annotated[Path, flag("out")]
Overwrite = Annotated[bool, flag("overwrite")]


def evaluate(options: "RunSpec", since: float | None = None) -> list[Path]:
    """Run a matrix and return its run folders; a signal ends with a line that says how to go on.

    Args:
        options: what to run.
        since: see `run_matrix`.
    """
    try:
        with patient_interrupts():
            from tempeval.accepted import load_accepting
            from tempeval.run.runner import run_matrix

            return run_matrix(options, report=report, load=load_accepting, since=since)
    except KeyboardInterrupt as error:
        from tempeval.run.scoring import describe

        came = signal.Signals.__members__.get(str(error), signal.SIGINT)
        # All is cleaned up; another signal would only break the end of the interpreter.
        for name in SIGNALS:
            signal.signal(name, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            if _is_first():
                say(f"{'' if str(error) else NEW_LINE}{describe(error)}", error=True)
        raise typer.Exit(128 + came) from None


@contextlib.contextmanager
def patient_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt for each of `SIGNALS`, its text the name of any but Ctrl-C's.

    One that comes soon after another is ignored: it would interrupt the cleaning up. A signal for
    which somebody decided otherwise, such as `nohup` or an embedding program, is left alone.
    """
    standing = {name: signal.getsignal(name) for name in SIGNALS}
    own = (signal.default_int_handler, signal.SIG_DFL)
    mine = [name for name, handler in standing.items() if handler in own]
    if threading.current_thread() is not threading.main_thread():
        mine = []
    last = -CLEAN_UP_SECONDS

    def handle(number: int, _frame: object) -> None:
        nonlocal last
        if time.monotonic() - last > CLEAN_UP_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt(*([signal.Signals(number).name] * (number != signal.SIGINT)))

    for name in mine:
        signal.signal(name, handle)
    try:
        yield
    finally:
        for name in mine:
            signal.signal(name, standing[name])


def report(line: str) -> None:
    """Print a line of progress; of several processes, only the first does."""
    if _is_first():
        say(line)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"

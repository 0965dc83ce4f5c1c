"""Commands in fresh processes: started, watched through what they leave on disk, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BIN = Path(sys.executable).parent
LAUNCHER = Path(__file__).parent / "run_with_tasks.py"
PATIENCE_S = 240.0

#: What helps a test's own process, or a rank's, and must not help the command.
_DROPPED = ("LMMS", "PYTHON", "TEMPEVAL", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "PYTEST")


class Command:
    """A command in a session of its own, with its output in files.

    Args:
        arguments: the command line.
        cwd: where it runs, and where its output lies.
    """

    def __init__(self, arguments: Sequence[object], cwd: Path) -> None:
        self._out, self._err = cwd / "stdout.txt", cwd / "stderr.txt"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
        environment |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [str(argument) for argument in arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text(errors="replace")

    def wait(self, code: int | None = 0) -> Command:
        """Wait for the end; compare the exit code unless `code` is None."""
        try:
            got = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise
        assert code is None or got == code, f"exit code {got}\n{self.stdout}{self.stderr}"
        return self

    def until(self, condition: Callable[[], bool], interval: float = 0.002) -> None:
        """Wait until something is true while the command runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            ended = self.process.poll()
            assert ended is None, f"ended with {ended}\n{self.stdout}{self.stderr}"
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(interval)

    def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does: SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the process itself at once (SIGKILL), not what it has started."""
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        """End everything that the command started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def members(self) -> list[int]:
        """Return the process ids of the command's session that still run."""
        return [pid for pid, session in _sessions() if session == self.process.pid]


@contextlib.contextmanager
def started(arguments: Sequence[object], cwd: Path) -> Iterator[Command]:
    """Start a command; nothing of it is left at the end."""
    cwd.mkdir(parents=True, exist_ok=True)
    command = Command(arguments, cwd)
    try:
        yield command
    finally:
        command.kill_all()


def tempeval_run(tasks: Path, *arguments: object) -> list[object]:
    """Return the command line of `tempeval run` over the tasks of a folder."""
    return [sys.executable, LAUNCHER, tasks, "run", *arguments]


def torchrun(ranks: int, *arguments: object) -> list[object]:
    """Return the command line that runs a script or `-m module` on several ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"--nproc_per_node={ranks}", "--master_addr=127.0.0.1", f"--master_port={port}"]
    return [BIN / "torchrun", *options, *arguments]


def journal_lines(out: Path, rank: int = 0) -> int:
    """Count the whole lines of a rank's journal."""
    try:
        return (out / "journal" / f"rank{rank}.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _sessions() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    yield int(entry.name), int(fields[3])

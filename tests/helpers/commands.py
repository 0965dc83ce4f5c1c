"""Commands in fresh processes: started, watched through what they leave on disk, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

BIN = Path(sys.executable).parent
LAUNCHER = Path(__file__).parent / "run_with_tasks.py"
PATIENCE_S = 240.0
HOST = "127.0.0.1"

#: What helps a test's own process, or a rank's, and must not help the command.
_DROPPED = ("LMMS", "PYTHON", "TEMPEVAL", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "PYTEST")


class Command:
    """A command in a session of its own, with its output in files.

    Args:
        arguments: the command line.
        cwd: where it runs, and where its output lies.
        variables: further environment variables.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        cwd: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._out, self._err = cwd / "stdout.txt", cwd / "stderr.txt"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
        self._mark = f"STARTED_BY_TEST={uuid.uuid4()}"  # children inherit it, whoever's they are
        environment |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        environment |= {**dict([self._mark.split("=")]), **(variables or {})}
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
        for process in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def members(self) -> list[int]:
        """Return the process ids of the command and of all it started, as far as they run."""
        return [n for n, variables in _environments() if self._mark.encode() in variables]

    def ranks(self) -> dict[int, int]:
        """Return the process id of each rank of a `torchrun`."""
        found = {}
        for process, variables in _environments():
            if self._mark.encode() in variables and _is_rank(process):
                ranks = [v for v in variables if v.startswith(b"RANK=")]
                found |= {int(rank.partition(b"=")[2]): process for rank in ranks}
        return found


@contextlib.contextmanager
def started(
    arguments: Sequence[object], cwd: Path, variables: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """Start a command; nothing of it is left at the end."""
    cwd.mkdir(parents=True, exist_ok=True)
    command = Command(arguments, cwd, variables)
    try:
        yield command
    finally:
        command.kill_all()


def tempeval_run(tasks: Path, *arguments: object) -> list[object]:
    """Return the command line of `tempeval run` over the tasks of a folder."""
    return [sys.executable, LAUNCHER, tasks, "run", *arguments]


def torchrun(ranks: int, *arguments: object) -> list[object]:
    """Return the command line that runs a script or `-m module` on several ranks."""
    options = [f"--nproc_per_node={ranks}", f"--master_addr={HOST}", f"--master_port={free_port()}"]
    return [BIN / "torchrun", *options, *arguments]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def rank_variables(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return what `torchrun` tells a rank, for ranks that nothing watches over."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
    }


def journal_lines(out: Path, rank: int = 0) -> int:
    """Count the whole lines of a rank's journal."""
    try:
        return (out / "journal" / f"rank{rank}.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """Walk over the living processes with the environment that each was started with."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")


def _is_rank(process: int) -> bool:
    """Tell a rank from its decoders, which inherit its environment."""
    with contextlib.suppress(OSError):
        return b"tempeval.video.worker" not in Path(f"/proc/{process}/cmdline").read_bytes()
    return False

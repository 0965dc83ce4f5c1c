"""Read samples files in pieces, in other processes where there is much to read.

Reading is most of the work of a large leaderboard. A process is started as a command
(see `serve`), not forked, because the caller may have threads and a
loaded model, and not spawned, because that imports the caller's main script again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from tempeval.leaderboard.columns import BadLine, append_row, name, parse, target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Bytes of a piece: large enough to be worth a message, small enough to share out evenly.
PIECE = 16_000_000
# Below this many bytes, another process costs more time than it saves.
WORTH_A_PROCESS = 32_000_000
MOST_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of a samples file: the lines that begin in [start, end), in bytes."""

    path: str
    start: int
    end: int
    score_key: str
    cluster_key: str


@dataclass(frozen=True, slots=True)
class Fault:
    """The first line of a piece that cannot be used, from 1; `line` 0 is the file itself."""

    line: int
    reason: str


@dataclass(slots=True)
class Piece:
    """What the lines of a piece say.

    Attributes:
        lines: lines in it, empty ones included.
        numbers: [n], from 1, of the lines that hold a sample.
        ids: [n], sample ids.
        contents: [n], content hashes.
        clusters: [n], `key=value` of the cluster.
        targets: [n], right answers as text, or the digest of a long one; empty where not stated.
        failed: [n], 1 where the sample failed.
        rows: flat, n x `columns.WIDTH` numbers.
        fault: None when all lines could be used; else reading stopped there.
    """

    lines: int
    numbers: array[int]
    ids: list[str]
    contents: list[str]
    clusters: list[str]
    targets: list[str]
    failed: bytearray
    rows: array[float]
    fault: Fault | None


def pieces_of(path: str, size: int, score_key: str, cluster_key: str) -> list[Job]:
    """Cut a file of `size` bytes into jobs, in order; an empty file is one."""
    starts = range(0, max(size, 1), PIECE)
    ends = [*starts[1:], size]
    return [
        Job(path, start, end, score_key, cluster_key)
        for start, end in zip(starts, ends, strict=True)
    ]


def scan(job: Job) -> Piece:
    """Read one piece."""
    piece = Piece(0, array("q"), [], [], [], [], bytearray(), array("d"), None)
    # A hash or video that comes again is kept once; so is the prefix of a cluster's name.
    seen: dict[str, str] = {}
    try:
        with open(job.path, "rb") as file:  # noqa: PTH123 - a path is a str in a job
            for line in _lines(file, job.start, job.end):
                piece.lines += 1
                if line.isspace():
                    continue
                _take(piece, line, job, seen)
    except BadLine as error:
        piece.fault = Fault(piece.lines, str(error))
    except OSError as error:
        piece.fault = Fault(0, f"cannot be read ({error.strerror})")
    return piece


def _take(piece: Piece, line: bytes, job: Job, seen: dict[str, str]) -> None:
    """Append a line to a piece; nothing is appended when it cannot be used."""
    raw = parse(line)
    sample, content = name(raw, "sample_id"), name(raw, "content_hash")
    cluster = name(raw, job.cluster_key)
    failed = append_row(piece.rows, raw, job.score_key)
    if (named := seen.get(cluster)) is None:
        named = seen[cluster] = f"{job.cluster_key}={cluster}"
    piece.ids.append(sample)
    piece.contents.append(content)
    piece.clusters.append(named)
    piece.targets.append(target(raw))
    piece.failed.append(failed)
    piece.numbers.append(piece.lines)


def _lines(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """Yield the lines that begin in [start, end)."""
    place = start
    if start > 0:
        file.seek(start - 1)
        place += len(file.readline()) - 1
    while place < end:
        line = file.readline()
        if not line:
            return
        place += len(line)
        yield line


def scan_all(jobs: Sequence[Job], take: Callable[[int, Piece], None]) -> None:
    """Read all pieces, in several processes if there is much to read and a processor for them.

    Args:
        jobs: the pieces.
        take: gets the number of a job and what it gave, in any order, one at a time.
    """
    total = sum(job.end - job.start for job in jobs)
    workers = min(_processors(), MOST_PROCESSES, len(jobs))
    left = set(range(len(jobs)))

    def got(number: int, piece: Piece) -> None:
        left.discard(number)
        take(number, piece)

    if total >= WORTH_A_PROCESS and workers > 1 and sys.executable:
        _in_processes(jobs, workers, got)
    # Everything, or what a process that was killed did not do.
    for number in sorted(left):
        got(number, scan(jobs[number]))


def _processors() -> int:
    with contextlib.suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_processes(jobs: Sequence[Job], workers: int, take: Callable[[int, Piece], None]) -> None:
    """Share the jobs out, the largest first, each to whoever is free.

    A process that ends early, for whatever reason, leaves its job undone.
    """
    queue = iter(sorted(range(len(jobs)), key=lambda number: jobs[number].start - jobs[number].end))
    lock = threading.Lock()

    def following() -> int | None:
        with lock:
            return next(queue, None)

    def feed(worker: subprocess.Popen[bytes]) -> None:
        if worker.stdin is None or worker.stdout is None:
            return
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            while (number := following()) is not None:
                pickle.dump(jobs[number], worker.stdin)
                worker.stdin.flush()
                piece = pickle.load(worker.stdout)  # noqa: S301 - from our own process
                with lock:
                    take(number, piece)

    processes: list[subprocess.Popen[bytes]] = []
    try:
        # A system that cannot start one (no memory, no processes left) reads by itself.
        with contextlib.suppress(OSError):
            processes.extend(_start() for _ in range(workers))
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(feed, processes):
                pass
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    return subprocess.Popen(  # noqa: S603 - our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )


def serve() -> None:
    """Read the jobs on standard input until it ends, and write what they give to standard output.

    Whatever else is printed goes to standard error.
    """
    with os.fdopen(os.dup(1), "wb") as out, contextlib.suppress(EOFError, OSError):
        os.dup2(2, 1)
        while True:
            job: Job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started us
            pickle.dump(scan(job), out, protocol=pickle.HIGHEST_PROTOCOL)
            out.flush()

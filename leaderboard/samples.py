"""Read lmms-eval's samples files into columns, sorted by sample id."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tempeval.leaderboard import scan
from tempeval.leaderboard.columns import columns
from tempeval.leaderboard.records import Samples
from tempeval.run.record import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tempeval.leaderboard.records import Floats, RunTask
    from tempeval.leaderboard.scan import Job, Piece

    Identity = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]

_RERUN = "Rerun this task"
_COPY = "Copy it beside run.json, or rerun this task"
_TWICE = "Two runs may have written one file in the same second; rerun this task"
_T = TypeVar("_T")


def read_samples(path: Path, task: RunTask) -> Samples:
    """Read one samples file.

    Args:
        path: the JSONL file.
        task: names the score and the cluster key.

    Returns:
        The columns, sorted by sample id.

    Raises:
        BadRecord: the file cannot be read; a line is not a JSON object, lacks an id, hash,
            cluster or finite score, or has a measure that is not a number; a sample id occurs
            twice.
    """
    (found,) = read_all([(path, task)])
    if isinstance(found, BadRecord):
        raise found
    return found


def read_all(files: Sequence[tuple[Path, RunTask]]) -> list[Samples | BadRecord]:
    """Read many samples files, in several processes where that is worth it.

    Files over the same samples share the memory of their ids.

    Args:
        files: path and task of each, as for `read_samples`.

    Returns:
        The columns of each file, or why it cannot be used, in the order received.
    """
    found: list[Samples | BadRecord | None] = [None] * len(files)
    jobs: list[Job] = []
    owners: list[tuple[int, int]] = []  # of each job: file, and which piece of it
    waiting: list[dict[int, Piece]] = [{} for _ in files]
    parts = [0] * len(files)
    for number, (path, task) in enumerate(files):
        try:
            size = path.stat().st_size
        except OSError as error:
            reason = f"cannot be read ({error.strerror}){_near(path)}"
            found[number] = BadRecord(path, None, reason, _COPY)
            continue
        own = scan.pieces_of(str(path), size, task.score_key, task.cluster_key)
        parts[number] = len(own)
        owners += [(number, i) for i in range(len(own))]
        jobs += own
    identities: dict[str, Identity] = {}

    def take(job: int, piece: Piece) -> None:
        number, place = owners[job]
        waiting[number][place] = piece
        if len(waiting[number]) == parts[number]:
            pieces = [waiting[number].pop(i) for i in range(parts[number])]
            try:
                found[number] = _joined(files[number][0], pieces, identities)
            except BadRecord as error:
                found[number] = error

    scan.scan_all(jobs, take)
    return [result for result in found if result is not None]


def _near(path: Path) -> str:
    """Name a file beside a missing one whose name differs in case only."""
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return ""
    alike = [name for name in names if name.casefold() == path.name.casefold()]
    return f"; {alike[0]!r} is there, which differs in case" if alike else ""


def _joined(path: Path, pieces: list[Piece], identities: dict[str, Identity]) -> Samples:
    """Join the pieces of a file, sort them by sample id, and hash what identifies them."""
    _check(path, pieces)
    ids = _flat([piece.ids for piece in pieces])
    order = sorted(range(len(ids)), key=ids.__getitem__)
    for first, second in itertools.pairwise(order):
        if ids[first] == ids[second]:
            raise _twice(path, pieces, ids[first], sorted((first, second)))
    identity = _identity(order, ids, pieces)
    name = _hashed(identity)
    rows = np.array(order, dtype=np.intp)
    parts = [columns(piece.rows) for piece in pieces]
    main = _picked([part[0] for part in parts], rows)
    failed = np.frombuffer(b"".join(piece.failed for piece in pieces), dtype=np.bool_)[rows]
    kept = identities.setdefault(name, identity)
    targets = _flat([piece.targets for piece in pieces])
    return Samples(
        ids=kept[0],
        contents=kept[1],
        clusters=kept[2],
        digest=name,
        targets=_hashed(targets[i] for i in order) if any(targets) else "",
        score=main["score"],
        by_sum=main["by_sum"],
        failed=failed,
        unparsed=main["unparsed"],
        measures=_picked([part[1] for part in parts], rows),
    )


def _check(path: Path, pieces: list[Piece]) -> None:
    """Raise for the first line that could not be used."""
    before = 0
    for piece in pieces:
        if (fault := piece.fault) is not None:
            line = before + fault.line if fault.line else None
            raise BadRecord(path, line, fault.reason, _RERUN if line else _COPY)
        before += piece.lines


def _twice(path: Path, pieces: list[Piece], name: str, rows: list[int]) -> BadRecord:
    """Say on which lines a sample id is."""
    lines: list[int] = []
    before = 0
    for piece in pieces:
        lines += [before + number for number in piece.numbers]
        before += piece.lines
    first, second = (lines[row] for row in rows)
    reason = f"sample_id {name!r} is on line {first} and again on line {second}"
    return BadRecord(path, second, reason, _TWICE)


def _identity(order: list[int], ids: list[str], pieces: list[Piece]) -> Identity:
    contents = _flat([piece.contents for piece in pieces])
    clusters = _flat([piece.clusters for piece in pieces])
    once: dict[str, str] = {}
    return (
        tuple(ids[i] for i in order),
        tuple(contents[i] for i in order),
        tuple(once.setdefault(clusters[i], clusters[i]) for i in order),
    )


def _hashed(parts: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()


def _picked(parts: Sequence[Mapping[str, Floats]], rows: NDArray[np.intp]) -> dict[str, Floats]:
    """Join columns and put them in the order of `rows`."""
    return {key: np.concatenate([part[key] for part in parts])[rows] for key in parts[0]}


def _flat(lists: list[list[_T]]) -> list[_T]:
    return lists[0] if len(lists) == 1 else list(itertools.chain.from_iterable(lists))

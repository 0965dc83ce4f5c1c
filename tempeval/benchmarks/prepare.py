"""Official archives into a benchmark's folder, and what else it needs: `tempeval data prepare`."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tempeval.benchmarks.base import Archive, MissingData
from tempeval.benchmarks.parts import WHOLE, archive_files, matching
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.roots import VARIABLE, candidates, data_root
from tempeval.benchmarks.unpack import CannotWrite, unpack
from tempeval.benchmarks.unpack_state import STATE_FOLDER, is_unpacked, state_path
from tempeval.errors import BadArchive, TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tempeval.benchmarks.base import Benchmark
    from tempeval.benchmarks.parts import ArchiveFiles
    from tempeval.benchmarks.unpack import Unpacked

    Progress = Callable[[str, int, int], None]

#: Where a benchmark names no archives: whatever lies in its folder, and in its folder of videos.
_ANY = tuple(
    Archive(f"{folder}*{ending}", folder or ".")
    for folder in ("", "video/", "videos/")
    for ending in WHOLE
)


@dataclass
class Prepared:
    """What was done for a benchmark.

    Attributes:
        root: its folder.
        unpacked: archives that are unpacked now, those that were before too.
        absent: patterns of archives that no file matches; of annotations only where those are not
            there.
        fetched: data of its metrics, one line each.
        failures: what went wrong, one text per archive or download; the others are done all the
            same.
    """

    root: Path
    unpacked: list[Unpacked] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def prepare(
    name: str,
    given: str | Path | None = None,
    source: Path | None = None,
    progress: Progress = lambda label, done, total: None,
) -> Prepared:
    """Unpack the official archives of a benchmark, as far as they are there; fetch metrics' data.

    Archives are looked for in `source`, in the benchmark's folder, and in the data root; they are
    left as they are. What is unpacked already is kept.

    Args:
        name: the benchmark.
        given: data root; None for `$TEMPEVAL_DATA`.
        source: folder that holds the archives, if it is another one.
        progress: called with the archive, its bytes that are done, and all.

    Raises:
        UnknownName: if there is no such benchmark.
        MissingData: if there is no data root, or no folder `source`.
        CannotWrite: if the benchmark's folder cannot be made, or another process unpacks into it.
    """
    chosen = benchmark(name)
    root = data_root(given)
    if root is None:
        raise MissingData(f"say where to put {name}: set {VARIABLE}, or pass --data-root")
    if source is not None and not source.is_dir():
        raise MissingData(f"--from {source} is no folder; it should hold the archives of {name}")
    home = home_of(chosen, root)
    done = Prepared(home)
    with _alone(home):
        for archive in archives_of(chosen):
            places = _places(archive, home, root)
            found = _unpack_all(archive, [source, *places] if source else places, done, progress)
            if not (found or archive in _ANY or (archive.annotations and _annotated(chosen, home))):
                done.absent.append(archive.pattern)
        if chosen.fetch is not None:
            try:
                done.fetched += chosen.fetch.get()
            except TempevalError as error:
                done.failures.append(str(error))
    return done


def archives_of(chosen: Benchmark) -> tuple[Archive, ...]:
    """Return the archives of a benchmark; where it names none, any that lie in its folder."""
    return chosen.archives or _ANY


def _places(archive: Archive, home: Path, root: Path) -> list[Path]:
    """Return where archives lie; one without a known name in the data root may be anybody's."""
    return [home] if archive in _ANY else list(dict.fromkeys((home, root)))


def home_of(chosen: Benchmark, root: Path) -> Path:
    """Return the folder that a benchmark is unpacked into.

    It is `root/<name>`, unless that does not exist and `root` itself holds its archives or its
    annotation files.
    """
    own, shared = candidates(chosen, root)
    if own.is_dir() or not root.is_dir():
        return own
    patterns = [pattern for archive in chosen.archives for pattern in archive.patterns]
    if any(matching(shared, pattern) for pattern in patterns) or _annotated(chosen, shared):
        return shared
    return own


def _annotated(chosen: Benchmark, folder: Path) -> bool:
    """Tell whether a folder has the annotation files of any split."""
    for split in chosen.splits:
        with suppress(TempevalError):
            chosen.annotations(folder, split)
            return True
    return False


def waiting(chosen: Benchmark, root: Path) -> list[Path]:
    """Return archives under a data root that are not unpacked yet, or not to their end."""
    home = home_of(chosen, root)
    found: list[Path] = []
    for archive in archives_of(chosen):
        for place, pattern in product(_places(archive, home, root), archive.patterns):
            paths = matching(place, pattern)
            try:
                groups = archive_files(paths)
            except BadArchive:
                found += paths
                continue
            for group in groups:
                state = state_path(home / STATE_FOLDER, group, archive.target)
                if not is_unpacked(state, group):
                    found += group.parts
    return found


def _unpack_all(archive: Archive, places: list[Path], done: Prepared, progress: Progress) -> bool:
    """Unpack an archive in all of its forms; return whether any of them was found."""
    there = False
    for pattern in archive.patterns:
        found = next((paths for p in places if (paths := matching(p, pattern))), [])
        there = there or bool(found)
        try:
            for files in archive_files(found):
                _unpack_one(files, archive.target, done, progress)
        except BadArchive as error:  # parts that are missing
            done.failures.append(str(error))
    return there


def _unpack_one(files: ArchiveFiles, target: str, done: Prepared, progress: Progress) -> None:
    state = state_path(done.root / STATE_FOLDER, files, target)
    folder = done.root / target
    label = files.parts[0].name if len(files.parts) == 1 else f"{files.parts[0].name} ..."
    try:
        done.unpacked.append(
            unpack(files, folder, state, lambda now, total: progress(label, now, total))
        )
    except (BadArchive, CannotWrite) as error:
        done.failures.append(str(error))


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    folder = home / STATE_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CannotWrite(
            f"another process unpacks into {home} now; wait for it, or stop it"
        ) from error
    except OSError as error:
        raise CannotWrite(f"cannot write to {home} ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()

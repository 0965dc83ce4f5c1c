"""Which members of an archive are unpacked: a file that only grows, in the archive's order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from tempeval.benchmarks.parts import ArchiveFiles

_DONE = {"done": True}
#: Folder inside a benchmark's that holds what is known about unpacked archives.
STATE_FOLDER = ".tempeval"


class UnpackState:
    """The finished members of one archive, one line `[size, name]` each, below a header.

    Members are asked for in the archive's order, and that is the order of the lines: so a file of
    millions of lines is read along with the archive, and is never in memory. A line that does not
    fit ends what is trusted; it and all after it are removed. An archive with other files, sizes
    or dates than the header says begins anew; what was listed before goes to `<path>.old`.

    Args:
        path: of the state file; made if it is not there.
        archive: what is unpacked.
    """

    def __init__(self, path: Path, archive: ArchiveFiles) -> None:
        self._path = path
        self._header = _identity(archive)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("r+b")
        self._trusted = True
        self._written: set[tuple[str, int]] | None = None
        if _parsed(self._file.readline()) != self._header:
            self._start_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def finished(self) -> Iterator[tuple[str, int]]:
        """Yield the members that are listed, name and size, without moving on."""
        with self._path.open("rb") as lines:
            next(lines, None)
            for line in lines:
                entry = _parsed(line)
                if not isinstance(entry, list):
                    return
                yield str(entry[1]), int(entry[0])

    def is_done(self) -> bool:
        """Tell whether the archive was unpacked to its end."""
        return _ends_done(self._path)

    def lists(self, name: str, size: int) -> bool:
        """Tell whether the next member is listed, and move on to the one after it."""
        if not self._trusted:
            return False
        begin = self._file.tell()
        if _parsed(self._file.readline()) == [size, name]:
            return True
        self._cut(begin)
        return False

    def wrote(self, name: str, size: int) -> bool:
        """Tell whether a file of this size was unpacked under this name, from any archive.

        All lists of the folder are read for that, once: only files that are to be replaced by
        other content are asked for.
        """
        if self._written is None:
            self._written = set()
            for path in self._path.parent.glob("*.jsonl*"):
                with path.open("rb") as lines:
                    entries = map(_parsed, lines)
                    self._written |= {(str(e[1]), int(e[0])) for e in entries if _is_member(e)}
        return (name, size) in self._written

    def add(self, name: str, size: int) -> None:
        """List a member after the last one."""
        if self._written is not None:
            self._written.add((name, size))
        self._file.write(f"{json.dumps([size, name])}\n".encode())
        self._file.flush()

    def close_list(self) -> None:
        """Say that there are no further members."""
        begin = self._file.tell()
        if not (self._trusted and _parsed(self._file.readline()) == _DONE):
            self._cut(begin)
            self._file.write(f"{json.dumps(_DONE)}\n".encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def _start_anew(self) -> None:
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(0)
            with self._path.with_name(f"{self._path.name}.old").open("ab") as old:
                shutil.copyfileobj(self._file, old)
        self._cut(0)
        self._file.write(f"{json.dumps(self._header)}\n".encode())
        self._file.flush()

    def _cut(self, place: int) -> None:
        self._file.seek(place)
        self._file.truncate()
        self._trusted = False


def state_path(folder: Path, archive: ArchiveFiles, target: str) -> Path:
    """Return where the state of an archive is kept.

    Args:
        folder: for state files.
        archive: what is unpacked, known by the names of its files.
        target: where to, relative to the benchmark's folder.
    """
    names = [path.name for path in archive.parts]
    digest = hashlib.sha256(json.dumps([names, target]).encode()).hexdigest()[:12]
    return folder / f"{archive.parts[0].name}.{digest}.jsonl"


def is_unpacked(path: Path, archive: ArchiveFiles) -> bool:
    """Tell whether a state file says that this archive was unpacked to its end; writes nothing."""
    try:
        with path.open("rb") as lines:
            begun = _parsed(lines.readline()) == _identity(archive)
        return begun and _ends_done(path)
    except OSError:
        return False


def _ends_done(path: Path) -> bool:
    mark = f"{json.dumps(_DONE)}\n".encode()
    with path.open("rb") as lines:
        size = lines.seek(0, os.SEEK_END)
        lines.seek(max(size - len(mark), 0))
        return lines.read() == mark


def _identity(archive: ArchiveFiles) -> dict[str, Any]:
    found = [(path.name, path.stat()) for path in archive.parts]
    return {"files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]}


def _is_member(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2


def _parsed(line: bytes) -> Any:
    """Return what a whole line says; None for one that is cut off or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None

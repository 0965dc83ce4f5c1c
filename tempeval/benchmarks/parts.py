"""Official archives on disk: whole ones, and parts that are read as one without joining them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tempeval.errors import BadArchive

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

#: A file with one of these endings is an archive by itself; others that match are parts of one.
WHOLE = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_COUNTER = re.compile(r"^(.*?)(\d+|[a-z]{2,3})$")
_NUMBERED_ZIP = re.compile(r"-\d+(\.zip)$", re.IGNORECASE)


@dataclass(frozen=True)
class ArchiveFiles:
    """One archive: a file, or its parts in order of name."""

    parts: tuple[Path, ...]

    @property
    def label(self) -> str:
        """How it is called in messages: the path of the file, or of the first and last part."""
        if len(self.parts) == 1:
            return str(self.parts[0])
        return f"{self.parts[0]} ... {self.parts[-1].name} ({len(self.parts)} parts)"

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(path.stat().st_size for path in self.parts)

    def opened(self) -> Joined:
        """Open it for reading."""
        return Joined(self.parts)


class Joined(io.RawIOBase):
    """Files read one after the other, as if they were one.

    Args:
        paths: in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = tuple(paths)
        self._ends: list[int] = []
        for path in self._paths:
            self._ends.append((self._ends[-1] if self._ends else 0) + path.stat().st_size)
        self._at = 0
        self._open: tuple[int, io.FileIO] | None = None

    @property
    def current(self) -> Path:
        """The file that is being read."""
        return self._paths[self._index()]

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from any place."""
        return True

    def tell(self) -> int:
        """Return the place, in bytes from the start of the first file."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; one after the end gives no bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot go to byte {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the buffer or of the current file."""
        while self._at < self._ends[-1]:
            index = self._index()
            file = self._file(index)
            begin = self._ends[index - 1] if index else 0
            file.seek(self._at - begin)
            count = file.readinto(memoryview(buffer)[: self._ends[index] - self._at])
            if not count:
                raise EOFError(f"{self._paths[index]} became shorter while it was read")
            self._at += count
            return count
        return 0

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _index(self) -> int:
        last = len(self._ends) - 1
        return next((i for i, end in enumerate(self._ends) if self._at < end), last)

    def _file(self, index: int) -> io.FileIO:
        if self._open is None or self._open[0] != index:
            if self._open is not None:
                self._open[1].close()
            self._open = index, io.FileIO(self._paths[index])
        return self._open[1]


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files under a folder that match a glob, in order of name; none is no error."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.glob(pattern) if p.is_file() and not p.name.startswith(".")]
    return sorted(found)


def archive_files(paths: Iterable[Path]) -> list[ArchiveFiles]:
    """Group files into archives.

    Args:
        paths: files, sorted.

    Returns:
        Each file with an ending of `WHOLE` alone, and the parts of each name together, also those
        that are called `<name>-00.zip`, ... and are no zip files.

    Raises:
        BadArchive: if a part is missing between two others, or at the start.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        split = _counted(path)
        key = path if split is None else path.with_name(split[1] + "?")
        groups.setdefault(str(key), []).append(path)
    found = [ArchiveFiles(tuple(group)) for group in groups.values()]
    for archive in found:
        if len(archive.parts) > 1:
            _check_numbers(archive)
    return found


def _counted(path: Path) -> re.Match[str] | None:
    """Split the name of a part before its counter; None for an archive by itself."""
    if not path.name.lower().endswith(WHOLE):
        return _COUNTER.match(path.name)
    numbered = _NUMBERED_ZIP.search(path.name)
    if numbered is None or _begins_as_zip(path):
        return None
    return _COUNTER.match(path.name[: numbered.start(1)])


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _check_numbers(archive: ArchiveFiles) -> None:
    counters = [match[2] for path in archive.parts if (match := _counted(path))]
    numbers = [_number(counter) for counter in counters]
    before = archive.parts[0]
    if numbers[0] > 1:
        raise BadArchive(str(before), f"parts are missing before it: {before.name} is the first")
    for (path, number), (after, following) in pairwise(zip(archive.parts, numbers, strict=True)):
        if following != number + 1:
            raise BadArchive(
                archive.label,
                f"parts are missing between {path.name} and {after.name}; download them",
            )


def _number(counter: str) -> int:
    """Return the place of a part: its number, or of `aa`, `ab`, ... (as of `split`) from 0."""
    if counter.isdecimal():
        return int(counter)
    place = 0
    for letter in counter:
        place = place * 26 + ord(letter) - ord("a")
    return place

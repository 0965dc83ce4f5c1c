"""The members of an official archive one after the other, checked, in constant memory."""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from tempeval.archive_members import (
    Limits,
    Member,
    Members,
    decompressed,
    open_tar,
    tar_headers,
    zip_members,
)
from tempeval.benchmarks.tape import Tape
from tempeval.errors import BadArchive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tempeval.benchmarks.parts import ArchiveFiles, Joined

#: What reading a damaged archive may raise.
UNREADABLE = (
    OSError,  # gzip's and bzip2's own errors too
    EOFError,
    lzma.LZMAError,
    NotImplementedError,  # a compression that Python does not have
    RuntimeError,  # an encrypted member
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
_BLOCK = 512
_BUFFER_BYTES = 1 << 20


class ArchiveStream:
    """An open archive.

    Attributes:
        joined: its files; `joined.tell()` is how far it was read.
        unpacked_bytes: what it unpacks to, where the archive says so beforehand; else None.
        members: its files in order, links (as copies) last; folders are left out. A member can be
            opened until the next one is asked for.
    """

    def __init__(
        self, joined: Joined, unpacked_bytes: int | None, members: Iterator[Member]
    ) -> None:
        self.joined, self.unpacked_bytes, self.members = joined, unpacked_bytes, members


@contextmanager
def opened(archive: ArchiveFiles, target: Path, limits: Limits) -> Iterator[ArchiveStream]:
    """Open a zip, or a tar that is plain or compressed with gzip, bzip2 or xz.

    Args:
        archive: which.
        target: folder that its members are unpacked into; links are read from there.
        limits: how much it may hold.

    Raises:
        BadArchive: if it is none of these, or damaged at its start; iterating raises it for a
            member that would leave the target or is no file, folder or link, for more than the
            limits, and for a tar that is cut off. Reading raises `UNREADABLE`.
    """
    joined = archive.opened()
    with joined, io.BufferedReader(joined, _BUFFER_BYTES) as stream:
        try:
            found = _recognised(archive, joined, stream, target, limits)
        except UNREADABLE as error:
            raise BadArchive(
                archive.label, f"it cannot be read as zip or tar ({error}); download it again"
            ) from error
        yield found


def _recognised(
    archive: ArchiveFiles,
    joined: Joined,
    stream: Any,  # a BufferedReader of `joined`, whose stub is generic in new Pythons only
    target: Path,
    limits: Limits,
) -> ArchiveStream:
    start = stream.read(4)
    stream.seek(0)
    label = archive.label
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = [m for m in zip_members(zipfile.ZipFile(stream), limits, label) if m.opened]
        return ArchiveStream(joined, sum(m.size for m in members), iter(members))
    plain = decompressed(stream)
    if plain is stream:
        tar = open_tar(stream, label)
        return ArchiveStream(joined, archive.size, _tar_members(tar, stream, label, target, limits))
    tape = Tape(plain)
    tar = open_tar(tape, label)
    return ArchiveStream(joined, None, _tar_members(tar, tape, label, target, limits))


def _tar_members(
    tar: tarfile.TarFile,
    stream: Any,  # a Tape, or a BufferedReader
    source: str,
    target: Path,
    limits: Limits,
) -> Iterator[Member]:
    links: list[tuple[str, str, str]] = []
    room = _Room(source, limits)
    for info in tar_headers(tar, source):
        room.take(info.size)
        if info.isdir():
            continue
        if info.issym() or info.islnk():
            base = posixpath.dirname(info.name) if info.issym() else ""
            links.append((info.name, info.linkname, base))
        elif info.isreg():
            yield _file(info.name, info.size, source, _from_tar(tar, info))
        else:
            Members(source, limits).refuse(info.name)
    _check_end(tar, stream, source)
    if isinstance(stream, Tape):
        stream.drain()
    yield from _copies(links, source, target, room)


class _Room:
    """How much of the limits a tar has used up, copies that its links become included."""

    def __init__(self, source: str, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._bytes = self._members = 0

    def take(self, size: int) -> None:
        """Count one member of `size` bytes.

        Raises:
            BadArchive: if that is too much.
        """
        self._bytes += size
        self._members += 1
        most = self._limits
        if self._bytes > most.max_bytes or self._members > most.max_members:
            raise BadArchive(
                self._source,
                f"it would unpack to more than {most.max_bytes / 1e9:.0f} GB or "
                f"{most.max_members} members",
            )


def _file(name: str, size: int, source: str, reader: Callable[[], IO[bytes] | None]) -> Member:
    """Check the name of one member, alone: all names together may be too many to hold."""
    members = Members(source, Limits())
    members.add_file(name, 0, reader)
    [member] = members.all()
    return Member(member.name, size, reader)


def _from_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes] | None]:
    return lambda: tar.extractfile(info)


def _copies(
    links: list[tuple[str, str, str]], source: str, target: Path, room: _Room
) -> Iterator[Member]:
    """Turn links into copies of the files that were unpacked, links to links in any order.

    A link to a folder becomes a copy of its files, once all links in it are copies; one that lies
    in the folder it leads to is left out.
    """
    waiting = [(name, pointed, _way(name, pointed, base, source)) for name, pointed, base in links]
    waiting = [link for link in waiting if not _is_below(link[0], link[2])]
    while waiting:
        left = []
        for name, pointed, way in waiting:
            found = target / way
            full = found.is_dir() and not any(_is_below(other, way) for other, *_ in waiting)
            if found.is_file():
                files = {name: found}
            elif full:
                files = {f"{name}/{p.relative_to(found).as_posix()}": p for p in _files(found)}
            else:
                left.append((name, pointed, way))
                continue
            for copy, original in files.items():
                size = original.stat().st_size
                room.take(size)
                yield _file(copy, size, source, _from_disk(original))
        if len(left) == len(waiting):
            name, pointed, _ = left[0]
            raise BadArchive(
                source, f"its link {name!r} leads to {pointed!r}, which is no file or folder in it"
            )
        waiting = left


def _way(name: str, pointed: str, base: str, source: str) -> str:
    """Return where a link leads, as a path inside the archive."""
    way = posixpath.normpath(posixpath.join(base, pointed))
    if pointed.startswith("/") or way.split("/")[0] == ".." or "\\" in pointed:
        raise BadArchive(source, f"its link {name!r} leads out of it, to {pointed!r}")
    return way


def _is_below(name: str, folder: str) -> bool:
    """Tell whether a name of an archive lies in a folder of it, at any depth."""
    return folder == "." or posixpath.normpath(name).startswith(f"{folder}/")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _from_disk(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _check_end(tar: tarfile.TarFile, stream: Any, source: str) -> None:
    """Refuse a tar that stops between two members: Python reads it as if it were whole."""
    stream.seek(tar.offset)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise BadArchive(
            source,
            "it is cut off or damaged (no end mark); download it again, with all of its parts",
        )

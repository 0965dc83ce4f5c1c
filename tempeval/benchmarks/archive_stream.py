"""The members of an official archive one after the other, checked, in constant memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from tempeval.archive_members import Limits, Member, Members, zip_members
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
_COMPRESSED: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", lambda stream: bz2.BZ2File(stream)),
    (b"\xfd7zXZ\0", lambda stream: lzma.LZMAFile(stream)),  # noqa: SIM115
)


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
    start = stream.read(6)
    stream.seek(0)
    label = archive.label
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = [m for m in zip_members(zipfile.ZipFile(stream), limits, label) if m.opened]
        return ArchiveStream(joined, sum(m.size for m in members), iter(members))
    for magic, decompressed in _COMPRESSED:
        if start.startswith(magic):
            tape = Tape(decompressed(stream))
            tar = tarfile.TarFile(fileobj=tape)  # type: ignore[arg-type]
            return ArchiveStream(joined, None, _tar_members(tar, tape, label, target, limits))
    tar = tarfile.TarFile(fileobj=stream)
    return ArchiveStream(joined, archive.size, _tar_members(tar, stream, label, target, limits))


def _tar_members(
    tar: tarfile.TarFile,
    stream: Tape | io.BufferedReader,
    source: str,
    target: Path,
    limits: Limits,
) -> Iterator[Member]:
    links: list[tuple[str, str, str]] = []
    total = count = 0
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else it keeps one object per member
        count += 1
        total += info.size
        if total > limits.max_bytes or count > limits.max_members:
            raise BadArchive(
                source,
                f"it would unpack to more than {limits.max_bytes / 1e9:.0f} GB or "
                f"{limits.max_members} members",
            )
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
    yield from _copies(links, source, target)


def _file(name: str, size: int, source: str, reader: Callable[[], IO[bytes] | None]) -> Member:
    """Check the name of one member, alone: all names together may be too many to hold."""
    members = Members(source, Limits())
    members.add_file(name, 0, reader)
    [member] = members.all()
    return Member(member.name, size, reader)


def _from_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes] | None]:
    return lambda: tar.extractfile(info)


def _copies(links: list[tuple[str, str, str]], source: str, target: Path) -> Iterator[Member]:
    """Turn links into copies of the files that were unpacked, links to links in any order."""
    waiting = links
    while waiting:
        left = []
        for name, pointed, base in waiting:
            way = posixpath.normpath(posixpath.join(base, pointed))
            outside = pointed.startswith("/") or way.split("/")[0] == ".." or "\\" in pointed
            if outside:
                raise BadArchive(source, f"its link {name!r} leads out of it, to {pointed!r}")
            found = target / way
            if found.is_file():
                yield _file(name, found.stat().st_size, source, _from_disk(found))
            else:
                left.append((name, pointed, base))
        if len(left) == len(waiting):
            name, pointed, _ = left[0]
            raise BadArchive(
                source, f"its link {name!r} leads to {pointed!r}, which is no file in it"
            )
        waiting = left


def _from_disk(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _check_end(tar: tarfile.TarFile, stream: Tape | io.BufferedReader, source: str) -> None:
    """Refuse a tar that stops between two members: Python reads it as if it were whole."""
    stream.seek(tar.offset)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise BadArchive(
            source,
            "it is cut off or damaged (no end mark); download it again, with all of its parts",
        )

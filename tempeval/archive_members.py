"""What a zip or tar archive may hold: files and folders inside it, in bounded size, no more."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import re
import stat
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from tempeval.errors import BadArchive

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable, Iterator

_TAR_BLOCK = 512
_LONGEST_LINK = 4096
#: Most bytes that a tar may say about one member: long names and extended headers are read whole.
_MOST_HEADER_BYTES = 1 << 20
#: Videos, JPEGs and weights do not shrink; text does, to a tenth or so.
_MOST_TIMES, _SMALL_BYTES = 100, 1 << 30
_COMPRESSED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", lambda stream: bz2.BZ2File(stream)),
    (b"\xfd7zXZ\0", lambda stream: lzma.LZMAFile(stream)),  # noqa: SIM115
)


@dataclass(frozen=True)
class Limits:
    """How much an archive may write.

    Attributes:
        max_bytes: of all files together, unpacked.
        max_members: files, folders and links.
    """

    max_bytes: int = 256 << 30
    max_members: int = 2_000_000

    def of_packed(self, size: int) -> Limits:
        """Return the limits of an archive of `size` bytes: no file here grows a hundredfold."""
        most = min(self.max_bytes, max(_MOST_TIMES * size, _SMALL_BYTES))
        return Limits(most, self.max_members)


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive.

    Attributes:
        name: inside the archive, checked; never absolute, without `..`.
        size: bytes, 0 for a folder.
        opened: opens the file for reading; None for a folder.
    """

    name: PurePosixPath
    size: int = 0
    opened: Callable[[], IO[bytes] | None] | None = None


class Members:
    """Members of one archive, checked as they are added.

    Args:
        archive: for errors.
        limits: how much it may hold.
    """

    def __init__(self, archive: str, limits: Limits) -> None:
        self._archive, self._limits = archive, limits
        self._found: dict[PurePosixPath, Member] = {}
        self._links: dict[PurePosixPath, PurePosixPath] = {}
        self._bytes = 0

    def add_folder(self, name: str) -> None:
        """Add a folder; archives may name one twice.

        Raises:
            BadArchive: if it lies outside, or has the name of a file.
        """
        path = self._checked(name)
        if path.parts and path not in self._found:
            self._add(Member(path))

    def add_file(self, name: str, size: int, opened: Callable[[], IO[bytes] | None]) -> None:
        """Add a file.

        Raises:
            BadArchive: if it lies outside, is there already, or is too much.
        """
        self._add(Member(self._checked(name), size, opened))

    def add_link(self, name: str, target: str, base: str) -> None:
        """Add a link to another file of the archive; it becomes a copy of it.

        Args:
            name: of the link.
            target: as the archive has it.
            base: folder inside the archive that `target` is relative to.

        Raises:
            BadArchive: if link or target lie outside, or there is a member of that name.
        """
        path = self._checked(name)
        if path in self._found or path in self._links:
            raise self._bad(f"it names {name!r} twice")
        way = posixpath.normpath(posixpath.join(base, target))
        if target.startswith("/") or way.startswith("..") or "\\" in target:
            raise self._bad(f"its link {name!r} leads out of it, to {target!r}")
        self._links[path] = PurePosixPath(way)

    def all(self) -> list[Member]:
        """Return all members, in the archive's order, links last.

        Raises:
            BadArchive: if a link leads to something that is no file of the archive.
        """
        for path, target in self._links.items():
            seen = {path}
            while target in self._links and target not in seen:
                seen.add(target)
                target = self._links[target]
            found = self._found.get(target)
            if found is None or found.opened is None:
                raise self._bad(
                    f"its link {str(path)!r} leads to {str(target)!r}, which is no file in it"
                )
            self._add(Member(path, found.size, found.opened))
        return list(self._found.values())

    def refuse(self, name: str) -> None:
        """Refuse a member that is neither file, folder nor link.

        Raises:
            BadArchive: always.
        """
        raise self._bad(f"{name!r} is a device or another special file")

    def _add(self, member: Member) -> None:
        if member.name in self._found:
            raise self._bad(f"it names {str(member.name)!r} twice")
        if not member.name.parts:
            raise self._bad("it has a file without a name")
        self._bytes += member.size
        self._found[member.name] = member
        most = self._limits
        if self._bytes > most.max_bytes:
            raise self._bad(f"it would unpack to more than {most.max_bytes / 1e9:.1f} GB")
        if len(self._found) + len(self._links) > most.max_members:
            raise self._bad(f"it has more than {most.max_members} members")

    def _checked(self, name: str) -> PurePosixPath:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
            raise self._bad(f"its member {name!r} would be written outside its folder")
        if "\\" in name or "\0" in name:
            raise self._bad(f"its member {name!r} has a character that no name may have")
        return path

    def _bad(self, reason: str) -> BadArchive:
        return BadArchive(self._archive, reason)


def zip_members(archive: zipfile.ZipFile, limits: Limits, source: str) -> list[Member]:
    """List what a zip file holds.

    Raises:
        BadArchive: if anything in it may not be unpacked.
    """
    members = Members(source, limits)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir():
            members.add_folder(info.filename)
        elif kind == stat.S_IFLNK:
            if info.file_size > _LONGEST_LINK:
                members.refuse(info.filename)
            target = archive.read(info).decode("utf-8", "surrogateescape")
            members.add_link(info.filename, target, posixpath.dirname(info.filename))
        elif kind in (0, stat.S_IFREG):
            members.add_file(info.filename, info.file_size, _opener(archive.open, info))
        else:
            members.refuse(info.filename)
    return members.all()


def decompressed(stream: IO[bytes]) -> IO[bytes]:
    """Return what a gzip, bzip2 or xz stream holds, by its first bytes; any other as it is."""
    start = stream.read(6)
    stream.seek(0)
    for magic, reader in _COMPRESSED:
        if start.startswith(magic):
            found: IO[bytes] = reader(stream)
            return found
    return stream


class _Headers:
    """A stream for tarfile that gives it only so many bytes for the headers of one member.

    tarfile reads the name of a member, and its extended header, into memory in the length that the
    archive says: a few MB of a compressed archive may say gigabytes.
    """

    def __init__(self, stream: Any, source: str) -> None:
        self._stream, self._source = stream, source
        self.left: int | None = _MOST_HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if self.left is not None:
            self.left -= size
            if size < 0 or self.left < 0:
                raise BadArchive(
                    self._source,
                    f"one of its members has a name or header of more than {_MOST_HEADER_BYTES} "
                    "bytes",
                )
        found: bytes = self._stream.read(size)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_tar(stream: Any, source: str) -> tarfile.TarFile:
    """Open a tar file whose headers take bounded memory; read them with `tar_headers`.

    Args:
        stream: what it holds, decompressed.
        source: for errors.

    Raises:
        BadArchive: if the header of its first member is too long.
        tarfile.TarError: if it is no tar file.
    """
    headers = _Headers(stream, source)
    tar = tarfile.TarFile(fileobj=headers)
    headers.left = None
    return tar


def tar_headers(archive: tarfile.TarFile, source: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file in order, without keeping them.

    Raises:
        BadArchive: for a member whose header (name, extended header, map of holes) is too long.
    """
    headers: Any = archive.fileobj
    while True:
        headers.left = _MOST_HEADER_BYTES
        info = archive.next()
        headers.left = None
        if info is None:
            return
        archive.members.clear()  # type: ignore[attr-defined]  # else it keeps one per member
        yield info


def tar_members(archive: tarfile.TarFile, limits: Limits, source: str) -> list[Member]:
    """List what a tar file holds.

    Raises:
        BadArchive: if anything in it may not be unpacked, or it is cut off.
    """
    members = Members(source, limits)
    for info in tar_headers(archive, source):
        if info.isdir():
            members.add_folder(info.name)
        elif info.issym():
            members.add_link(info.name, info.linkname, posixpath.dirname(info.name))
        elif info.islnk():
            members.add_link(info.name, info.linkname, "")
        elif info.isreg():
            members.add_file(info.name, info.size, _opener(archive.extractfile, info))
        else:
            members.refuse(info.name)
    _check_end(archive, source)
    return members.all()


def _check_end(archive: tarfile.TarFile, source: str) -> None:
    """Refuse a tar file that stops between two members: Python reads it as if it were whole."""
    stream: Any = archive.fileobj
    stream.seek(archive.offset)
    if stream.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
        raise BadArchive(source, "it is cut off or damaged (no end mark); download it again")


def _opener(method: Callable[[Any], IO[bytes] | None], info: Any) -> Callable[[], IO[bytes] | None]:
    return lambda: method(info)

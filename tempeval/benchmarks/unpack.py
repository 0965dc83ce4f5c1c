"""Unpack one official archive into a benchmark's folder: whole members only, and once."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tempeval.archive_members import Limits
from tempeval.benchmarks.archive_stream import UNREADABLE, opened
from tempeval.benchmarks.unpack_state import STATE_FOLDER, UnpackState
from tempeval.errors import BadArchive, TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tempeval.archive_members import Member
    from tempeval.benchmarks.archive_stream import ArchiveStream
    from tempeval.benchmarks.parts import ArchiveFiles

#: Twice the largest official set; a member more than the disk has is refused before it is written.
LIMITS = Limits(max_bytes=4 << 40, max_members=20_000_000)
_BLOCK_BYTES = 1 << 20
#: How files that are being written end. They have short names, for any name has to fit with them.
PARTIAL = ".tempeval-partial"
#: What macOS adds to zip files beside the data.
_NOT_DATA = ("__MACOSX/", ".DS_Store")


class CannotWrite(TempevalError):
    """A benchmark's folder that files cannot be unpacked into."""


@dataclass
class Unpacked:
    """What became of an archive.

    Attributes:
        label: the archive.
        written: files written now.
        kept: files that were there from before.
        bytes: of both.
    """

    label: str
    written: int = 0
    kept: int = 0
    bytes: int = 0


def unpack(
    archive: ArchiveFiles,
    target: Path,
    state: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Unpacked:
    """Unpack an archive; the archive stays as it is.

    Every member is written beside its place, checked, and renamed, so that what is there under its
    own name is whole. Members that the state file lists and that are there in their size are not
    written again, so a second call after a kill goes on.

    Args:
        archive: a file, or parts of one.
        target: folder for its members; made if it is not there.
        state: the file that lists finished members (see `unpack_state.state_path`).
        progress: called with bytes of the archive that are done, and all.

    Raises:
        BadArchive: if it is damaged, cut off, or holds what may not be unpacked; names the file.
        CannotWrite: if the disk has no room, the folder takes no files, or a file that is there
            already, was not unpacked here and has other content would be overwritten.
    """
    total = archive.size
    done = Unpacked(archive.label)
    limits = LIMITS.of_packed(total)
    with _writing(target):
        target.mkdir(parents=True, exist_ok=True)
        finished = UnpackState(state, archive)
    with finished:
        there = _there(finished, target)
        if finished.is_done() and there.whole:
            done.kept, done.bytes = there.files, there.bytes
            progress(total, total)
            return done
        with opened(archive, target, limits) as stream:
            _check_room(archive, stream, target, there.bytes)
            for member in _members(stream, archive):
                _one(member, archive, stream, target, finished, done)
                place = stream.joined.tell()
                if stream.unpacked_bytes:
                    place = max(place, total * done.bytes // stream.unpacked_bytes)
                progress(min(place, total), total)
        finished.close_list()
    progress(total, total)
    return done


def _one(
    member: Member,
    archive: ArchiveFiles,
    stream: ArchiveStream,
    target: Path,
    finished: UnpackState,
    done: Unpacked,
) -> None:
    name = str(member.name)
    if any(part.lower() == STATE_FOLDER for part in member.name.parts):
        raise BadArchive(
            archive.label,
            f"its member {name!r} would be written among tempeval's own records ({STATE_FOLDER})",
        )
    if name.lower().endswith(PARTIAL):
        raise BadArchive(
            archive.label,
            f"its member {name!r} is called as files are while tempeval writes them ({PARTIAL})",
        )
    path = target / member.name
    listed = finished.lists(name, member.size)
    if listed and _has_size(path, member.size):
        done.kept += 1
    else:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_free(path.parent, member.size, archive)
        with _beside(path, _reader(member, archive, stream)) as new:
            if not listed and _is_foreign(path, new, name, finished):
                raise CannotWrite(
                    f"{path} is there already with other content than in {archive.label}, and "
                    "tempeval did not write it, so it stays. Move it away if it is to be replaced, "
                    "and run the same command again; what was unpacked stays"
                )
            with _writing(path):
                new.replace(path)
        if not listed:
            with _writing(target):
                finished.add(name, member.size)
        done.written += 1
    done.bytes += member.size


@contextmanager
def _beside(path: Path, blocks: Iterator[bytes]) -> Iterator[Path]:
    """Write a file beside the place where it shall go; it is removed if it does not go there."""
    # The same name each time, so that what a killed run left is replaced.
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    beside = path.with_name(f".{digest}{PARTIAL}")
    with _writing(path):
        beside.unlink(missing_ok=True)
        file = beside.open("xb")
    try:
        with file:
            for block in blocks:
                with _writing(path):
                    file.write(block)
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _is_foreign(path: Path, new: Path, name: str, finished: UnpackState) -> bool:
    """Tell whether a file that is there is neither the new one nor one that was unpacked before."""
    if not path.is_file():
        return False
    with _writing(path):
        same = filecmp.cmp(path, new, shallow=False)
        return not same and not finished.wrote(name, path.stat().st_size)


def _reader(member: Member, archive: ArchiveFiles, stream: ArchiveStream) -> Iterator[bytes]:
    """Yield a member's bytes, neither more nor fewer than it says."""
    left = member.size
    try:
        source = member.opened() if member.opened else None
        if source is None:
            raise BadArchive(archive.label, f"{str(member.name)!r} has no content")
        with source:
            while block := source.read(min(_BLOCK_BYTES, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                yield block
    except UNREADABLE as error:
        raise _damaged(archive, stream, error) from error
    if left:
        raise BadArchive(
            archive.label,
            f"{str(member.name)!r} has not the {member.size} bytes that it says; download it again",
        )


def _members(stream: ArchiveStream, archive: ArchiveFiles) -> Iterator[Member]:
    while True:
        try:
            member = next(stream.members, None)
        except UNREADABLE as error:
            raise _damaged(archive, stream, error) from error
        if member is None:
            return
        if not str(member.name).startswith(_NOT_DATA) and member.name.name not in _NOT_DATA:
            yield member


def _damaged(archive: ArchiveFiles, stream: ArchiveStream, error: BaseException) -> BadArchive:
    place = stream.joined.current
    where = f" in or before {place.name}" if len(archive.parts) > 1 else ""
    return BadArchive(
        archive.label,
        f"it is damaged or cut off{where} ({error or type(error).__name__}); download it again. "
        "What was unpacked stays, and is unpacked anew from the new download",
    )


class _There(NamedTuple):
    """Listed members that are on disk in their size; `whole` if that is all of them."""

    files: int
    bytes: int
    whole: bool


def _there(finished: UnpackState, target: Path) -> _There:
    files = size = 0
    whole = True
    for name, expected in finished.finished():
        if _has_size(target / name, expected):
            files, size = files + 1, size + expected
        else:
            whole = False
    return _There(files, size, whole)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _check_room(archive: ArchiveFiles, stream: ArchiveStream, target: Path, there: int) -> None:
    """Refuse to begin where the disk has too little: the unpacked size, or at least the packed."""
    exact = stream.unpacked_bytes is not None
    needed = (stream.unpacked_bytes or archive.size) - there
    free = shutil.disk_usage(target).free
    if needed > free:
        raise CannotWrite(
            f"{archive.label} unpacks to {'' if exact else 'at least '}{needed / 1e9:.1f} GB more, "
            f"and {target} has {free / 1e9:.1f} GB left; make room, or link the folder to a larger "
            "disk, and run the same command again"
        )


def _check_free(folder: Path, size: int, archive: ArchiveFiles) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CannotWrite(
            f"no room left in {folder} ({free / 1e9:.1f} GB) while unpacking {archive.label}; what "
            "was unpacked stays: make room and run the same command again"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file when the disk refuses something."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}; what was unpacked stays: run the "
            "same command again when it can be written"
        ) from error

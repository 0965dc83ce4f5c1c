"""Unpack zip and tar archives into a cache, safely, whole or not at all.

An archive is data of unknown origin: what it may write, and how much, is decided here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from tempeval.archive_members import (
    Limits,
    Member,
    decompressed,
    open_tar,
    tar_members,
    zip_members,
)
from tempeval.errors import BadArchive

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK_BYTES = 1 << 22
_CONTENT, _FILES = "content", "files.json"
_UNREADABLE = (
    OSError,  # gzip's and bzip2's own errors too
    EOFError,
    LZMAError,
    NotImplementedError,  # a compression that Python does not have
    RuntimeError,  # an encrypted member
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Extracted:
    """An unpacked archive.

    Attributes:
        folder: where its members lie, as they are named in it.
        digest: hex SHA-256 of the archive.
    """

    folder: Path
    digest: str


def default_cache() -> Path:
    """Return tempeval's cache folder: `TEMPEVAL_CACHE`, else `tempeval` in the user's cache."""
    if own := os.environ.get("TEMPEVAL_CACHE"):
        return Path(own).expanduser()
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(users) / "tempeval"


def is_archive(path: Path) -> bool:
    """Tell whether a file is a zip or tar archive, by its content."""
    return path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path))


def _is_tar(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            open_tar(decompressed(stream), str(path))
    except BadArchive:
        return True
    except _UNREADABLE:
        return False
    return True


def extracted(
    archive: str | Path, cache: Path | None = None, *, limits: Limits | None = None
) -> Extracted:
    """Unpack an archive into the cache, or find it there.

    The folder is named by the archive's digest. Members are written into a temporary sibling that
    is renamed when whole, under a lock, so that nobody sees a part; a folder that has lost files or
    has others than were unpacked is unpacked again.

    Args:
        archive: zip file, or tar file (plain, gzip, bzip2 or xz).
        cache: folder to unpack under (in `archives`); None for `default_cache()`.
        limits: how much it may write; None for the defaults of an archive of its size.

    Raises:
        BadArchive: if it is no archive, damaged, encrypted or too large; or if a member would
            leave the folder, is a link to something that is no file of the archive, a device, or
            named twice.
    """
    path = Path(archive).expanduser()
    if not path.is_file():
        raise BadArchive(str(archive), "there is no such file")
    if not is_archive(path):
        raise BadArchive(str(archive), "it is neither a whole zip nor a tar; download it again")
    root = (default_cache() if cache is None else cache) / "archives"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadArchive(
            str(archive), f"cannot unpack to {str(root)!r} ({error}); set TEMPEVAL_CACHE"
        ) from error
    digest = file_digest(path)
    target = root / digest
    with FileLock(root / f"{digest}.lock"):
        if not _is_whole(target):
            _remove_rests(root, digest)
            most = limits or Limits().of_packed(path.stat().st_size)
            _extract(path, target, most)
    return Extracted(target / _CONTENT, digest)


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _extract(path: Path, target: Path, limits: Limits) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    try:
        content = temporary / _CONTENT
        content.mkdir()
        try:
            _write(path, content, limits)
        except _UNREADABLE as error:
            raise BadArchive(str(path), f"it is damaged or of an unknown kind: {error}") from error
        (temporary / _FILES).write_text(json.dumps(_sizes(content)), encoding="utf-8")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, content: Path, limits: Limits) -> None:
    # A tar first: one that ends with a zip looks like a zip.
    if _is_tar(path):
        with path.open("rb") as stream, open_tar(decompressed(stream), str(path)) as tar:
            _write_members(tar_members(tar, limits, str(path)), content, path)
        return
    with zipfile.ZipFile(path) as archive:
        _write_members(zip_members(archive, limits, str(path)), content, path)


def _write_members(members: Sequence[Member], content: Path, path: Path) -> None:
    total, free = sum(m.size for m in members), shutil.disk_usage(content).free
    if total > free:
        raise BadArchive(
            str(path),
            f"it unpacks to {total / 1e9:.1f} GB, and {str(content.parent.parent)!r} has "
            f"{free / 1e9:.1f} GB left; make room, or set TEMPEVAL_CACHE to another folder",
        )
    for member in members:
        target = content / member.name
        if member.opened is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = member.opened()
        if stream is None:
            raise BadArchive(str(path), f"{str(member.name)!r} has no content")
        with stream, target.open("xb") as file:
            shutil.copyfileobj(stream, file, _BLOCK_BYTES)
            if file.tell() != member.size:
                raise BadArchive(
                    str(path),
                    f"{str(member.name)!r} has {file.tell()} bytes, not {member.size}; download "
                    "it again",
                )


def _remove_rests(root: Path, digest: str) -> None:
    """Remove what an interrupted or damaged extraction left."""
    for rest in (root / digest, *root.glob(f"{digest}.partial-*")):
        if rest.exists():
            shutil.rmtree(rest)


def _is_whole(target: Path) -> bool:
    """Tell whether a folder has exactly the files, by size, that were unpacked into it."""
    try:
        recorded = json.loads((target / _FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(recorded == _sizes(target / _CONTENT))


def _sizes(folder: Path) -> dict[str, int]:
    return {
        found.relative_to(folder).as_posix(): found.stat().st_size
        for found in folder.rglob("*")
        if found.is_file()
    }

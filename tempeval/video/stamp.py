"""What a video file is known by: its content where that is little, else its size and time."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import stat_result

    Stamp = tuple[int, str]

#: Up to this size a file, or a folder, is read whole; of a larger file this much, in places.
WHOLE_BYTES = 1 << 18
_PLACES = 4
#: Files whose digests a process keeps.
_KEPT = 1 << 16


def content_stamp(path: str) -> Stamp | None:
    """Return size and digest of a small file, size and modification time of a large one.

    Of a folder of images it is that of its entries: the folder's own time does not change when a
    file in it is written anew. None if nothing is there.
    """
    return _stamp(path, lambda _path, stat: str(stat.st_mtime_ns))


def video_digests(documents: Iterable[Sequence[str]]) -> tuple[str, str]:
    """Return two digests of the videos and images that documents show, wherever these lie.

    Args:
        documents: paths of what each shows, in order.

    Returns:
        The digest of the stamps (see `content_stamp`), which changes when a file is written; and
        the digest of contents, which copying does not change: of a large file its size and some
        places, of a large folder the names and sizes of its files.
    """
    stamps, contents = hashlib.sha256(), hashlib.sha256()
    for paths in documents:
        stamps.update(f"{[content_stamp(path) for path in paths]}\n".encode())
        contents.update(f"{[_stamp(path, _in_places) for path in paths]}\n".encode())
    return f"sha256:{stamps.hexdigest()}", f"sha256:{contents.hexdigest()}"


def _stamp(path: str, of_large: Callable[[Path, stat_result], str]) -> Stamp | None:
    place = Path(path)
    try:
        if not place.is_dir():
            stat = place.stat()
            if stat.st_size > WHOLE_BYTES:
                return stat.st_size, of_large(place, stat)
            return stat.st_size, _content(place, stat.st_size, stat.st_mtime_ns)
        entries = [(entry, entry.stat()) for entry in sorted(place.iterdir())]
        files = [(entry, stat) for entry, stat in entries if not entry.is_dir()]
        large = sum(stat.st_size for _, stat in files) > WHOLE_BYTES
        named = [
            (
                entry.name,
                stat.st_size,
                # Thousands of frames are not opened one by one.
                ("" if of_large is _in_places else of_large(entry, stat))
                if large
                else _content(entry, stat.st_size, stat.st_mtime_ns),
            )
            for entry, stat in files
        ]
    except OSError:
        return None
    return len(named), hashlib.sha256(repr(named).encode()).hexdigest()


@lru_cache(_KEPT)
def _content(path: Path, size: int, changed_ns: int) -> str:
    """Return the digest of a whole file; read again when its size or time changes.

    A pipe or a device counts by its time alone: reading one may never end.
    """
    if not path.is_file():
        return str(changed_ns)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _in_places(path: Path, stat: stat_result) -> str:
    return _sampled(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(_KEPT)
def _sampled(path: Path, size: int, changed_ns: int) -> str:
    """Return the digest of evenly spaced parts of a file, both ends among them."""
    part = WHOLE_BYTES // _PLACES
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_PLACES):
            file.seek((size - part) * number // (_PLACES - 1))
            whole.update(file.read(part))
    return whole.hexdigest()

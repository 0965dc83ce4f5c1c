"""Names of the content of files and folders, the same wherever a copy lies.

Large files are sampled: a training set of videos is not read whole to learn that it is the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

CHUNK, CHUNKS = 64 << 10, 4
"""Bytes of a chunk, and how many are read of a file, spread from its start to its end."""


def content_key(path: str | Path) -> str | None:
    """Name the content of a video or a file of features; None if it is not there.

    Files up to `CHUNK * CHUNKS` bytes count whole; of larger ones the size and chunks. Of a folder
    of images, names and sizes of all entries and the content of some count.
    """
    place = Path(path)
    whole = hashlib.sha256()
    try:
        if not place.is_dir():
            _add_file(whole, place)
        else:
            entries = sorted(entry for entry in place.iterdir() if entry.is_file())
            for entry in entries:
                whole.update(f"{entry.name} {entry.stat().st_size}\n".encode())
            for entry in {entries[n]: None for n in _spread(len(entries) - 1)} if entries else ():
                _add_file(whole, entry)
    except OSError:
        return None
    return whole.hexdigest()[:32]


def _add_file(whole: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    whole.update(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= CHUNK * CHUNKS:
            whole.update(file.read())
            return
        for start in _spread(size - CHUNK):
            file.seek(start)
            whole.update(file.read(CHUNK))


def _spread(last: int) -> list[int]:
    """Return `CHUNKS` places from 0 to `last`, both included."""
    places: list[int] = np.linspace(0, last, CHUNKS, dtype=np.int64).tolist()
    return places

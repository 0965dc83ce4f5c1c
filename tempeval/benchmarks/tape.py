"""A compressed stream that is read forwards only, for tarfile, which wants to go back a little."""

from __future__ import annotations

import io
from typing import IO

_KEPT = 1 << 12
_BLOCK_BYTES = 1 << 20


class Tape:
    """A stream with a place, that can go forwards any way and back a few bytes.

    tarfile looks at the byte before each header, and the end mark is looked at after it was read;
    going back in a gzip file would mean to decompress it again from its start.

    Args:
        stream: read from its present place, which counts as 0.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._tail = b""
        self._at = self._end = 0

    def tell(self) -> int:
        """Return the place, in bytes."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Read bytes; fewer only at the end."""
        kept = self._tail[len(self._tail) - (self._end - self._at) :]
        if 0 <= count <= len(kept):
            self._at += count
            return kept[:count]
        fresh = self._stream.read(count if count < 0 else count - len(kept))
        self._tail = fresh[-_KEPT:] if len(fresh) >= _KEPT else (self._tail + fresh)[-_KEPT:]
        self._end += len(fresh)
        self._at = self._end
        return kept + fresh

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; beyond the end is the end.

        Raises:
            io.UnsupportedOperation: for one that lies too far back.
        """
        if whence != io.SEEK_SET or place < self._end - len(self._tail):
            raise io.UnsupportedOperation(f"a tape at {self._at} cannot go to {place} ({whence})")
        if place <= self._end:
            self._at = place
            return place
        self._at = self._end
        while self._at < place and self.read(min(place - self._at, _BLOCK_BYTES)):
            pass
        return self._at

    def drain(self) -> None:
        """Read to the end, where compressed streams keep their checksum."""
        while self.read(_BLOCK_BYTES):
            pass

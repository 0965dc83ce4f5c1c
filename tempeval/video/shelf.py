"""An ordered hand-over from decoding threads to one consumer, bounded in bytes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tempeval.errors import BadVideo, TempevalError

if TYPE_CHECKING:
    from tempeval.video.clip import Clip


class ShelfClosed(TempevalError):
    """The clips were asked for after their stream had been closed."""


class Shelf:
    """Holds decoded clips until they are consumed, in order.

    Clips are admitted in order too. So every held clip comes before the one that waits for room,
    the consumer can always go on, and the bound is exact: at most `limit` bytes, or one clip.

    Args:
        count: number of positions, 0 to count - 1.
        limit: bytes of frames to hold.
    """

    def __init__(self, count: int, limit: int) -> None:
        self._count, self._limit = count, limit
        self._changed = threading.Condition()
        self._taken = self._admitted = self._held = 0
        self._sizes: dict[int, int] = {}
        self._outcomes: dict[int, Clip | BadVideo] = {}
        self._failure: Exception | None = None
        self._closed = False

    @property
    def held(self) -> int:
        """Bytes of frames admitted and not yet consumed."""
        return self._held

    def take(self) -> int | None:
        """Return the next position to decode; None when there is none left to do."""
        with self._changed:
            if self._closed or self._failure or self._taken == self._count:
                return None
            self._taken += 1
            return self._taken - 1

    def admit(self, position: int, size: int) -> bool:
        """Wait for the turn of a position and for room; return whether it is still wanted.

        Args:
            position: a taken position; each is admitted once.
            size: bytes of its frames; 0 for a failure.
        """

        def has_room() -> bool:
            return self._held == 0 or self._held + size <= self._limit

        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._admitted == position and has_room())
            )
            if self._closed:
                return False
            self._admitted += 1
            self._held += size
            self._sizes[position] = size
            self._changed.notify_all()
            return True

    def put(self, position: int, outcome: Clip | BadVideo) -> None:
        """Hand over the outcome of an admitted position."""
        with self._changed:
            self._outcomes[position] = outcome
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Make `get` raise `error`: no single clip is at fault."""
        with self._changed:
            # What breaks while closing was broken by it.
            if not self._closed and self._failure is None:
                self._failure = error
                self._changed.notify_all()

    def get(self, position: int) -> Clip | BadVideo:
        """Wait for an outcome and remove it.

        Raises:
            ShelfClosed: the shelf was closed.
            Exception: what was passed to `fail`.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: position in self._outcomes or self._failure or self._closed
            )
            if self._closed:
                raise ShelfClosed("this stream of clips was closed; open a new one")
            if self._failure:
                raise self._failure
            self._held -= self._sizes.pop(position)
            self._changed.notify_all()
            return self._outcomes.pop(position)

    def close(self) -> None:
        """Drop everything and wake everyone who waits."""
        with self._changed:
            self._closed = True
            self._outcomes.clear()
            self._sizes.clear()
            self._held = 0
            self._changed.notify_all()

"""Encoded videos kept between methods: same frames, encoded once (design rule 4)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tempeval.stages import VisualTokens


@dataclass(frozen=True)
class Encoded:
    """Visual tokens of one video with what they cost, before any method's stage `encode`.

    Attributes:
        tokens: from the family.
        decode_ms, encode_ms: measured once, charged in full to every sample that uses them.
        flags: what was wrong with the video.
        vision_flops: analytic cost of the vision tower and projector.
    """

    tokens: VisualTokens
    decode_ms: float
    encode_ms: float
    flags: tuple[str, ...]
    vision_flops: float

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        held: list[Any] = [self.tokens.embeddings, self.tokens.features]
        return sum(t.numel() * t.element_size() for t in held if t is not None)


class FeatureCache:
    """Least-recently-used store of encoded videos, bounded in bytes.

    Args:
        limit_bytes: most bytes of tensors to hold; the newest entry is always kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._entries: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Encoded | None:
        """Return an entry and mark it as used, or None."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Hashable, entry: Encoded) -> None:
        """Store an entry, dropping the least recently used ones over the limit."""
        if key in self._entries:
            self._bytes -= self._entries.pop(key).nbytes
        self._entries[key] = entry
        self._bytes += entry.nbytes
        while self._bytes > self.limit_bytes and len(self._entries) > 1:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.nbytes

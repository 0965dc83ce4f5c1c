"""Encoded videos kept between methods: same frames, encoded once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import torch

    from tempeval.stages import SideFeatures, VisualTokens
    from tempeval.video.clip import SideSpec

#: A side channel and the stamp of the content that it came from.
SideKey = tuple["SideSpec", str]


@dataclass(frozen=True)
class Heard:
    """What a side channel says about one video, and the milliseconds that it took to say so."""

    side: SideFeatures
    ms: float


@dataclass(frozen=True)
class Encoded:
    """Visual tokens of one video with what they cost, before any method's stage `tokens`.

    Attributes:
        tokens: from the family.
        decode_ms, encode_ms: measured once, charged in full to every sample that uses them.
        flags: what was wrong with the video.
        vision_flops: analytic cost of the vision tower and projector.
        heard: side channels of the video.
        side_ms: what those among `tokens` took; charged as the others are.
    """

    tokens: VisualTokens
    decode_ms: float
    encode_ms: float
    flags: tuple[str, ...]
    vision_flops: float
    heard: Mapping[SideKey, Heard] = field(default_factory=dict)
    side_ms: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        held: list[Any] = [self.tokens.embeddings, self.tokens.features, self.tokens.spans]
        for entry in self.heard.values():
            held += [entry.side.features, entry.side.spans]
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    def with_heard(self, key: SideKey, heard: Heard, spans: torch.Tensor) -> Encoded:
        """Return the entry with one side channel more, and the spans of its grids."""
        tokens = replace(self.tokens, spans=spans)
        return replace(self, tokens=tokens, heard={**self.heard, key: heard})

    def with_all_heard(self, other: Encoded) -> Encoded:
        """Return the entry with the side channels of another one of the same video."""
        return replace(
            self, tokens=replace(self.tokens, spans=other.tokens.spans), heard=other.heard
        )

    def asked(self, *, features: bool, side: tuple[SideKey, ...]) -> Encoded:
        """Return what one frame plan asks for: tokens with no more and no less.

        Args:
            features: whether features before the projector are wanted.
            side: the side channels; all are held.
        """
        chosen = [self.heard[key] for key in side]
        return replace(
            self,
            tokens=replace(
                self.tokens,
                features=self.tokens.features if features else None,
                spans=self.tokens.spans if side else None,
                side={spec: one.side for (spec, _), one in zip(side, chosen, strict=True)},
            ),
            heard={},
            side_ms=sum(one.ms for one in chosen),
        )


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

    def peek(self, key: Hashable) -> Encoded | None:
        """Return an entry without marking it as used, or None."""
        return self._entries.get(key)

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

"""Caches that share a prefix by reference: the prefix is held once, a question owns its tail.

Logical and stored lengths differ: `get_seq_length` counts every token that was ever fed, whatever
a layer still holds, because transformers sizes inputs and masks by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.stages import StoredKV


@dataclass(frozen=True)
class PlainKV:
    """Keys and values held as they are, `[1, h_kv, P_l, d]` each."""

    keys: torch.Tensor
    values: torch.Tensor

    def decode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values."""
        return self.keys, self.values

    @property
    def nbytes(self) -> int:
        """Bytes of the two storages."""
        return self.keys.untyped_storage().nbytes() + self.values.untyped_storage().nbytes()

    @property
    def quantised_fraction(self) -> float:
        """Nothing is quantised."""
        return 0.0


@dataclass(frozen=True)
class Piece:
    """Keys and values that tails attend to, with the segment of each key.

    Attributes:
        held: the stored keys and values.
        segment: long `[n]`.
        ranges: `(segment, start, stop)` runs of `segment`, in order.
    """

    held: StoredKV
    segment: torch.Tensor
    ranges: tuple[tuple[int, int, int], ...]


def make_piece(held: StoredKV, segment: torch.Tensor) -> Piece:
    """Build a piece, computing the runs of equal segments once."""
    return Piece(held, segment, tuple(segment_ranges(segment)))


def segment_ranges(segment: torch.Tensor) -> list[tuple[int, int, int]]:
    """Split `[n]` segments into runs `(segment, start, stop)`."""
    if not len(segment):
        return []
    values, counts = torch.unique_consecutive(segment, return_counts=True)
    ranges, start = [], 0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        ranges.append((value, start, start + count))
        start += count
    return ranges


@dataclass(frozen=True)
class SharedPrefix:
    """The prefilled prefix of one video under one chain, shared by all its questions.

    Attributes:
        length: logical tokens P.
        layers: per decoder layer, the pieces its tails attend to.
    """

    length: int
    layers: tuple[tuple[Piece, ...], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of storage held over all layers, scales included."""
        return sum(piece.held.nbytes for pieces in self.layers for piece in pieces)

    @property
    def quantised_fraction(self) -> float:
        """Share of the held numbers that a codec quantised, over all layers."""
        total = sum(len(piece.segment) for pieces in self.layers for piece in pieces)
        if not total:
            return 0.0
        held = sum(
            len(piece.segment) * piece.held.quantised_fraction
            for pieces in self.layers
            for piece in pieces
        )
        return held / total


class PrefixCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """Collects keys and values while the prefix is prefilled in one pass."""

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[DynamicLayer() for _ in range(num_layers)])


class TailLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """Owns the keys and values that come after a shared prefix of `prefix_length` tokens."""

    def __init__(self, prefix_length: int) -> None:
        super().__init__()
        self.prefix_length = prefix_length

    @property
    def tail_length(self) -> int:
        """Tokens held by this layer."""
        return int(self.keys.shape[-2]) if self.is_initialized and self.keys.numel() else 0

    def get_seq_length(self) -> int:
        """Logical length: the prefix and the tail."""
        return self.prefix_length + self.tail_length

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the tail; the prefix is the same for every beam."""
        if self.tail_length:
            super().reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat the tail; the prefix needs no expansion."""
        if self.tail_length:
            super().batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Select rows of the tail."""
        if self.tail_length:
            super().batch_select_indices(indices)


class TailCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """A question's cache: a shared prefix by reference, and tails of its own.

    Args:
        prefix: what the tails attend to, or one without pieces for a prompt without visuals.
        prompt_length: tail tokens of the prompt (padding included); from its last token on, rows
            belong to segment "last".
    """

    def __init__(self, prefix: SharedPrefix, prompt_length: int) -> None:
        super().__init__(layers=[TailLayer(prefix.length) for _ in prefix.layers])
        self.prefix = prefix
        self.prompt_length = prompt_length


def tail_bytes_per_token(layers: Sequence[TailLayer]) -> int:
    """Bytes that one tail token of one row holds over all layers."""
    total = 0
    for layer in layers:
        if layer.tail_length:
            states = (layer.keys, layer.values)
            total += sum(s[0, :, 0].numel() * s.element_size() for s in states)
    return total

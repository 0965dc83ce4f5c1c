"""Caches that share a prefix by reference: the prefix is held once, a question owns its tail.

Logical and stored lengths differ: `get_seq_length` counts every token that was ever fed, whatever
a layer still holds, because transformers sizes inputs and masks by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tempeval.errors import UnsupportedModel
from tempeval.stages import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.stages import StoredKV, Tail


@dataclass(frozen=True)
class PlainKV:
    """Keys and values held as they are, `[1, h_kv, P_l, d]` each."""

    keys: torch.Tensor
    values: torch.Tensor

    def opened(self) -> PlainKV:
        """There is nothing to decode."""
        return self

    def read(self, tail: Tail) -> Reading:
        """Return everything as it is."""
        return Reading((self.keys, self.values), None, (tail.keys, tail.values))

    def extended(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """What follows is held beside it."""

    def nbytes(self, after: int) -> int:
        """Bytes of the storages, and of what follows."""
        states = (self.keys, self.values)
        return sum(s.untyped_storage().nbytes() + after * token_bytes(s) for s in states)

    def in_few_bits(self, after: int) -> tuple[int, int]:
        """Nothing is."""
        return 0, 0


def token_bytes(states: torch.Tensor) -> int:
    """Bytes of one token of `[B, h_kv, T, d]` keys or values."""
    return int(states.shape[1] * states.shape[3] * states.element_size())


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


def continued(
    pieces: tuple[Piece, ...], keys: torch.Tensor, values: torch.Tensor, segment: torch.Tensor
) -> tuple[Piece, ...]:
    """Add tokens of a sequence to the pieces of a layer.

    Args:
        pieces: of the layer.
        keys: `[1, h_kv, Q, d]`.
        values: `[1, h_kv, Q, d]`.
        segment: long `[Q]`.
    """
    longer = pieces[-1].held.extended(keys, values) if pieces else None
    if longer is None:
        return (*pieces, make_piece(PlainKV(keys, values), segment))
    whole = torch.cat([pieces[-1].segment, segment.to(pieces[-1].segment.device)])
    return (*pieces[:-1], make_piece(longer, whole))


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


class ExactPrefix:
    """The prefix as it was before the codecs, for the prompt of one question (exact prefill).

    A layer's pieces are let go once the question's rows have read them, so what is held afterwards
    is the stored prefix alone.

    Args:
        layers: pieces per decoder layer.
    """

    def __init__(self, layers: Sequence[tuple[Piece, ...]]) -> None:
        self._layers: list[tuple[Piece, ...] | None] = list(layers)

    def take(self, layer: int) -> tuple[Piece, ...]:
        """Return a layer's pieces, and let them go.

        Raises:
            UnsupportedModel: if a question has read them already.
        """
        pieces, self._layers[layer] = self._layers[layer], None
        if pieces is None:
            raise UnsupportedModel(
                "a prefix with exact prefill serves one question, fed in one pass; prefill it "
                "again for another, or use prefill=quantized"
            )
        return pieces


@dataclass(frozen=True)
class SharedPrefix:
    """The prefilled prefix of one video under one chain, shared by all its questions.

    Attributes:
        length: logical tokens P.
        layers: per decoder layer, the pieces its tails attend to.
        exact: what the prompt of the one question attends to instead; None where the prefix is
            shared.
        tail_bytes: bytes that one token holds over all layers where nothing is stored (a prompt
            without visuals).
    """

    length: int
    layers: tuple[tuple[Piece, ...], ...]
    exact: ExactPrefix | None = None
    tail_bytes: int = 0

    def nbytes(self, after: int) -> int:
        """Bytes of keys and values over all layers, scales included.

        Args:
            after: a question's own tokens that are held besides.
        """
        if not self.length and not any(self.layers):
            return after * self.tail_bytes
        return sum(
            piece.held.nbytes(after if number == 0 else 0)
            for pieces in self.layers
            for number, piece in enumerate(pieces)
        )

    def quantised(self, after: int) -> tuple[float, float]:
        """Return the shares of the prefix's keys and of its values that are in few bits.

        Over all layers; 0 without a prefix.

        Args:
            after: tokens that have followed the prefix.
        """
        pieces = [piece for pieces in self.layers for piece in pieces]
        total = max(sum(len(piece.segment) for piece in pieces), 1)
        counts = [piece.held.in_few_bits(after) for piece in pieces]
        return sum(keys for keys, _ in counts) / total, sum(values for _, values in counts) / total


class PrefixCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """Collects keys and values while the prefix is prefilled in one pass."""

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[DynamicLayer() for _ in range(num_layers)])
        self._stored: dict[int, StoredKV] = {}

    def hold(self, layer: int, stored: StoredKV, *, keep_exact: bool) -> None:
        """Keep what a codec made of a layer, in place of its keys and values or beside them."""
        self._stored[layer] = stored
        if not keep_exact:
            held = self.layers[layer]
            held.keys, held.values = held.keys.new_empty(0), held.values.new_empty(0)

    def stored(self, layer: int) -> StoredKV:
        """Return a layer's keys and values, as a codec holds them if there is one."""
        return self._stored[layer] if layer in self._stored else self.exact(layer)

    def exact(self, layer: int) -> PlainKV:
        """Return a layer's keys and values as they are."""
        return PlainKV(self.layers[layer].keys, self.layers[layer].values)


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

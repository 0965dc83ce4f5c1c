"""Caches that share a prefix by reference: the prefix is held once, a question owns its tail.

Logical and stored lengths differ: `get_seq_length` counts every token that was ever fed, whatever
a layer still holds, because transformers sizes inputs and masks by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, DynamicLayer

from tempeval.errors import UnsupportedModel

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


class DecodedOnce:
    """A stored piece that is decoded at most once; lives while one layer attends to it."""

    def __init__(self, held: StoredKV) -> None:
        self._held = held
        self._decoded: tuple[torch.Tensor, torch.Tensor] | None = None

    def decode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values."""
        if self._decoded is None:
            self._decoded = self._held.decode()
        return self._decoded

    @property
    def nbytes(self) -> int:
        """Bytes held at rest, without what is decoded for the moment."""
        return self._held.nbytes

    @property
    def quantised_fraction(self) -> float:
        """Share of the numbers that a codec quantised."""
        return self._held.quantised_fraction


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
    """

    length: int
    layers: tuple[tuple[Piece, ...], ...]
    exact: ExactPrefix | None = None

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

    def reads(
        self, layer: int, rows: int, columns: int
    ) -> list[tuple[tuple[Piece, ...], int, int]]:
        """Return which pieces the newest tail rows attend to, each decoded at most once.

        Args:
            layer: 0-based decoder layer.
            rows: number of rows.
            columns: tail tokens so far, these rows included.

        Returns:
            `(pieces, start, stop)` for runs of the rows, in order; one run unless prefill is exact.
        """
        exact = self.prefix.exact
        # Rows of the prompt among these.
        asked = min(max(self.prompt_length - (columns - rows), 0), rows) if exact else 0
        runs = []
        if exact and asked:
            runs.append((exact.take(layer), 0, asked))
        if asked < rows:
            runs.append((self.prefix.layers[layer], asked, rows))
        return [
            (tuple(replace(piece, held=DecodedOnce(piece.held)) for piece in pieces), start, stop)
            for pieces, start, stop in runs
        ]


def tail_bytes_per_token(layers: Sequence[TailLayer]) -> int:
    """Bytes that one tail token of one row holds over all layers."""
    total = 0
    for layer in layers:
        if layer.tail_length:
            states = (layer.keys, layer.values)
            total += sum(s[0, :, 0].numel() * s.element_size() for s in states)
    return total

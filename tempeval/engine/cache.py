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
    from collections.abc import Mapping, Sequence

    from tempeval.engine.plan import EnginePlan
    from tempeval.engine.scored import RowWeights
    from tempeval.stages import ScoreRequest, StoredKV, Tail


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


#: `(segment, start, stop)` runs of columns, in order.
Ranges = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Piece:
    """Keys and values that tails attend to, with the segment of each key.

    Attributes:
        held: the stored keys and values.
        segment: long `[n]`, or `[h_kv, n]` where each head holds tokens of its own.
        ranges: runs of `segment`, of all heads or of the first.
        of_heads: runs of each head where they differ; empty where all hold the same tokens.
        rows: which of the layer's prefix rows are held, in the shape of `segment`; None for all.
    """

    held: StoredKV
    segment: torch.Tensor
    ranges: Ranges
    of_heads: tuple[Ranges, ...] = ()
    rows: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens held by each head."""
        return int(self.segment.shape[-1])


def make_piece(held: StoredKV, segment: torch.Tensor, rows: torch.Tensor | None = None) -> Piece:
    """Build a piece, computing the runs of equal segments once.

    Args:
        held: keys and values of the rows that are held.
        segment: long `[P_l]`, of all rows of the layer.
        rows: long `[n]` or `[h_kv, n]`, which of them are held; None for all.
    """
    if rows is not None:
        segment = segment.to(rows.device)[rows]
    return _with_ranges(held, segment, rows)


def _with_ranges(held: StoredKV, segment: torch.Tensor, rows: torch.Tensor | None) -> Piece:
    if segment.ndim == 1:
        return Piece(held, segment, tuple(segment_ranges(segment)), rows=rows)
    of_heads = tuple(tuple(segment_ranges(own)) for own in segment)
    return Piece(held, segment, of_heads[0], of_heads, rows)


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
    own = pieces[-1].segment
    more = segment.to(own.device).expand(*own.shape[:-1], -1)
    return (*pieces[:-1], _with_ranges(longer, torch.cat([own, more], dim=-1), pieces[-1].rows))


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

    def see(self, layer: int) -> tuple[Piece, ...]:
        """Return a layer's pieces, for a look ahead of the question's own rows.

        Raises:
            UnsupportedModel: if a question has read them already.
        """
        pieces = self._layers[layer]
        if pieces is None:
            raise UnsupportedModel(
                "a prefix with exact prefill serves one question, fed in one pass; prefill it "
                "again for another, or use prefill=quantized"
            )
        return pieces

    def take(self, layer: int) -> tuple[Piece, ...]:
        """Return a layer's pieces, and let them go.

        Raises:
            UnsupportedModel: if a question has read them already.
        """
        pieces = self.see(layer)
        self._layers[layer] = None
        return pieces


@dataclass(frozen=True)
class Unshared:
    """What is left to compute of a prefix for each question on its own.

    Attributes:
        first: the first layer that differs from question to question; the depth where only what
            is held does.
        hidden: `[1, P_l, D]`, what enters that layer, after what is known to leave in it; None
            where `first` is the depth.
        measured: scores of prefix rows that the rules of that layer asked of the one before.
    """

    first: int
    hidden: torch.Tensor | None
    measured: Mapping[ScoreRequest, RowWeights]


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
        plan: the plan as the scores of this prefix narrowed it; None where it is as it was made.
        unshared: what has to be computed for each question before its rows are fed (see
            `prefix.finish`); None where the prefix is whole.
        shared_layers: first layers that were computed once for all questions.
    """

    length: int
    layers: tuple[tuple[Piece, ...], ...]
    exact: ExactPrefix | None = None
    tail_bytes: int = 0
    plan: EnginePlan | None = None
    unshared: Unshared | None = None
    shared_layers: int = 0

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
        total = max(sum(piece.tokens for piece in pieces), 1)
        counts = [piece.held.in_few_bits(after) for piece in pieces]
        return sum(keys for keys, _ in counts) / total, sum(values for _, values in counts) / total


class PrefixCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """Collects keys and values while the prefix is prefilled in one pass."""

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[DynamicLayer() for _ in range(num_layers)])
        self._stored: dict[int, tuple[StoredKV, torch.Tensor | None]] = {}
        #: What is left to each question, once the pass has come to it.
        self.unshared: Unshared | None = None

    def hold(
        self, layer: int, stored: StoredKV, rows: torch.Tensor | None, *, keep_exact: bool
    ) -> None:
        """Keep what is held of a layer, in place of its keys and values or beside them."""
        self._stored[layer] = stored, rows
        if not keep_exact:
            held = self.layers[layer]
            held.keys, held.values = held.keys.new_empty(0), held.values.new_empty(0)

    def stored(self, layer: int, segment: torch.Tensor) -> Piece:
        """Return a layer's keys and values, as a codec holds them if there is one."""
        if layer not in self._stored:
            return self.exact(layer, segment)
        held, rows = self._stored[layer]
        return make_piece(held, segment, rows)

    def exact(self, layer: int, segment: torch.Tensor) -> Piece:
        """Return a layer's keys and values as they are."""
        held = self.layers[layer]
        return make_piece(PlainKV(held.keys, held.values), segment)


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

    @property
    def reads_exact(self) -> bool:
        """Whether the prompt reads something else than later rows do."""
        return self.prefix.exact is not None

    def pieces(self, layer: int, *, prompt: bool) -> tuple[Piece, ...]:
        """Return what rows read of the prefix in a layer.

        Args:
            layer: 0-based.
            prompt: whether the rows are the prompt's; those read an exact prefix, once.
        """
        if prompt and self.prefix.exact is not None:
            return self.prefix.exact.take(layer)
        return self.prefix.layers[layer]


class QuestionCache(TailCache):
    """Collects what one question decides about the prefix, ahead of the question's own pass.

    In the layers that are shared, the question's rows follow the prefix as ever. From the first
    unshared layer on, rows of the prefix and of the question go through the layers as one
    sequence, and nothing of the question is kept.

    Args:
        prefix: as far as it is shared.
        unshared: what is left.
        question: tokens of the question.
    """

    def __init__(self, prefix: SharedPrefix, unshared: Unshared, question: int) -> None:
        super().__init__(prefix, question)
        self.unshared = unshared
        #: By layer: what tails will read, and what the prompt will under exact prefill.
        self.own: dict[int, Piece] = {}
        self.own_exact: dict[int, Piece] = {}
        #: Whether the question's rows are still among those that go through the layers.
        self.asking = True

    @property
    def going(self) -> int:
        """How many of the rows that go through the layers, the last ones, are the question's."""
        return self.prompt_length if self.asking else 0

    @property
    def reads_exact(self) -> bool:
        """All rows are the prompt's."""
        return True

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hand keys and values on: each row comes once, so nothing has to be held."""
        return key_states, value_states

    def pieces(self, layer: int, *, prompt: bool) -> tuple[Piece, ...]:
        """Return what the question's rows read of the prefix; nothing is let go."""
        if layer in self.own_exact:
            return (self.own_exact[layer],)
        if layer >= self.unshared.first:
            return (self.own[layer],)
        exact = self.prefix.exact
        return self.prefix.layers[layer] if exact is None else exact.see(layer)

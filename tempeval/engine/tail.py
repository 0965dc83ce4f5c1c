"""Attention of tail rows in one layer: what they read of the prefix, shared, stored or exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tempeval.engine.query_shift import shift_queries
from tempeval.engine.rows import Columns, attend_tail
from tempeval.stages import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.cache import Piece, Ranges, TailCache
    from tempeval.engine.plan import EnginePlan
    from tempeval.stages import OpenKV


def attend_after_prefix(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cache: TailCache,
    layer: int,
    plan: EnginePlan,
    *,
    padding: torch.Tensor | None,
    starts: Sequence[int],
    scale: float,
) -> tuple[torch.Tensor, str]:
    """Attend the cache's prefix and the own tail, as each row finds them held.

    The rows of the prompt read the prefix as it is held after the whole prompt (under exact
    prefill: as it was before the codecs) and one another as they were computed. A later row reads
    everything as it is held after the tokens before that row.

    Args:
        query: `[B, h, S, d]`, the newest S tail rows, without the plan's shift.
        key: `[B, h_kv, T, d]`, the whole tail.
        value: `[B, h_kv, T, d]`.
        cache: knows the prefix.
        layer: 0-based decoder layer.
        plan: the folded chain.
        padding: bool `[B, T]`, True on padding; None for none.
        starts: column of each row's first token that is no padding, B numbers.
        scale: factor on the scores.

    Returns:
        `[B, h, S, d]` and the kernel's name.
    """
    own = plan.layers[layer]
    query = shift_queries(query, own.rotary, float(own.rotary.shift_scale_after))
    rows, columns = query.shape[2], key.shape[2]
    first = columns - rows
    # Rows of the prompt among these.
    asked = min(max(cache.prompt_length - first, 0), rows)
    if own.codec is None and own.eviction is None:
        runs = [(0, rows)]
    elif own.codec is None:
        runs = [run for run in ((0, asked), (asked, rows)) if run[0] < run[1]]
    else:
        runs = [(0, asked)] if asked else []
        runs += [(row, row + 1) for row in range(asked, rows)]
    stored: list[tuple[Piece, OpenKV]] = []
    outs, kernel = [], ""
    for start, stop in runs:
        prompt = stop <= asked
        if prompt and cache.reads_exact:
            pieces = opened(cache.pieces(layer, prompt=True))
        else:  # decoded once for all runs
            stored = stored or opened(cache.pieces(layer, prompt=prompt))
            pieces = stored
        seen = first + stop
        after = [(cache.prompt_length if prompt else seen - 1) - column for column in starts]
        tail = Tail(key[:, :, :seen], value[:, :, :seen], starts, after, whole=not prompt)
        parts, (keys, values) = read_pieces(pieces, tail)
        out, kernel = attend_tail(
            query[:, :, start:stop],
            keys,
            values,
            pieces=parts,
            plan=own,
            segments=plan.segments,
            prompt_length=cache.prompt_length,
            padding=None if padding is None else padding[:, :seen],
            scale=scale,
        )
        outs.append(out)
    return (outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)), kernel


def opened(pieces: Sequence[Piece]) -> list[tuple[Piece, OpenKV]]:
    """Decode pieces for as long as one layer attends to them."""
    return [(piece, piece.held.opened()) for piece in pieces]


def read_pieces(
    pieces: Sequence[tuple[Piece, OpenKV]], tail: Tail
) -> tuple[list[Columns], tuple[torch.Tensor, torch.Tensor]]:
    """Return the columns before the tail, and the tail's keys and values."""
    parts, own = [], (tail.keys, tail.values)
    for piece, held in pieces:
        reading = held.read(tail)
        start, own = 0, reading.tail
        for states in (reading.shared, reading.own):
            if states is None:
                continue
            stop = start + states[0].shape[2]
            ranges = _within(piece.ranges, start, stop)
            of_heads = tuple(_within(own_ranges, start, stop) for own_ranges in piece.of_heads)
            if ranges:
                parts.append(Columns(*states, ranges, of_heads))
            start = stop
    return parts, own


def _within(ranges: Ranges, start: int, stop: int) -> Ranges:
    """Cut ranges to the columns of `[start, stop)`, counted from `start`."""
    return tuple(
        (segment, max(a, start) - start, min(b, stop) - start)
        for segment, a, b in ranges
        if max(a, start) < min(b, stop)
    )

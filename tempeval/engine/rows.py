"""Attention of one layer under a plan: block-wise visibility, prefix plus tail."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from tempeval.engine.attention import (
    Attended,
    attend_apart,
    attend_causal,
    attend_lse,
    attend_shared,
    merge,
)
from tempeval.engine.cache import segment_ranges
from tempeval.engine.stacks import columns, stacks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.cache import Ranges
    from tempeval.engine.plan import LayerPlan
    from tempeval.stages import Segments


class Columns(NamedTuple):
    """Keys and values before the tail, all of which lie before every tail row.

    Attributes:
        keys: `[1, h_kv, n, d]` where all rows of a batch share them, else `[B, h_kv, n, d]`.
        values: of the same shape.
        ranges: `(segment, start, stop)` runs of columns, in order; none is empty.
        of_heads: runs of each key/value head where they differ; empty where they do not.
    """

    keys: torch.Tensor
    values: torch.Tensor
    ranges: Ranges
    of_heads: tuple[Ranges, ...] = ()


def attend_prefix(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: LayerPlan,
    *,
    scale: float,
) -> tuple[torch.Tensor, str]:
    """Causal self-attention of the prefix rows present in a layer, under its visibility.

    Args:
        query: `[1, h, P_l, d]`.
        key: `[1, h_kv, P_l, d]`.
        value: `[1, h_kv, P_l, d]`.
        plan: the layer's plan.
        scale: factor on the scores.

    Returns:
        `[1, h, P_l, d]` and the kernel's name.
    """
    visible = plan.visible
    stacks = None if visible is None else stacks_of(visible, segment_ranges(plan.segment))
    if stacks is None:
        return attend_causal(query, key, value, scale=scale), "sdpa"
    # Laid out with the heads inside, as the next layer reads it: no copy is needed there.
    batch, heads, length, dim = query.shape
    out, kernel = query.new_empty(batch, length, heads, dim).transpose(1, 2), "math"
    for stack in stacks:
        rows = slice(stack.start, stack.stop)
        asking = query[:, :, rows]
        own = attend_apart(
            asking, key[:, :, rows], value[:, :, rows], count=stack.count, scale=scale
        )
        pieces = [own]
        if stack.earlier:
            keys, values = columns(key, stack.earlier), columns(value, stack.earlier)
            pieces.append(attend_lse(asking, keys, values, scale=scale))
        merge(pieces, out[:, :, rows])
        kernel = own.kernel
    return out, kernel


def attend_tail(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    pieces: Sequence[Columns],
    plan: LayerPlan,
    segments: Segments,
    prompt_length: int,
    padding: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, str]:
    """Attend what lies before the tail without a mask and the own tail causally; merge.

    Args:
        query: `[B, h, S, d]`, the newest S tail rows.
        key: `[B, h_kv, T, d]`, the whole tail (T >= S).
        value: `[B, h_kv, T, d]`.
        pieces: what lies before the tail in this layer.
        plan: the layer's plan.
        segments: names of the segments.
        prompt_length: tail tokens of the prompt; from its last one on, rows are "last".
        padding: bool `[B, T]`, True on padding; None for none.
        scale: factor on the scores.

    Returns:
        `[B, h, S, d]` and the kernel's name.
    """
    rows = query.shape[2]
    first = key.shape[2] - rows
    # Rows before `boundary` belong to the question, the others to "last".
    boundary = min(max(prompt_length - 1 - first, 0), rows)
    own = _own_tail(query, key, value, plan, segments, prompt_length, padding, scale)
    if not pieces:
        return own.out, own.kernel
    visible = plan.visible
    if visible is None or bool((visible[segments.question] == visible[segments.last]).all()):
        runs = [(segments.last, 0, rows)]
    else:
        runs = [(segments.question, 0, boundary), (segments.last, boundary, rows)]
    outs = []
    for segment, start, stop in runs:
        if start == stop:
            continue
        seen = None if visible is None else visible[segment].tolist()
        parts = [Attended(own.out[:, :, start:stop], own.lse[:, :, start:stop], own.kernel)]
        for piece in pieces:
            keys, values = piece.keys, piece.values
            if seen is not None and piece.of_heads:
                parts += _attend_heads(query[:, :, start:stop], piece, seen, scale)
                continue
            if seen is not None:
                ranges = [(a, b) for s, a, b in piece.ranges if seen[s]]
                if not ranges:
                    continue
                keys, values = columns(keys, ranges), columns(values, ranges)
            attend = attend_shared if len(keys) == 1 else attend_lse
            parts.append(attend(query[:, :, start:stop], keys, values, scale=scale))
        outs.append(merge(parts))
    return (outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)), own.kernel


def _attend_heads(
    query: torch.Tensor, piece: Columns, seen: Sequence[bool], scale: float
) -> list[Attended]:
    """Attend a piece in which each head holds tokens of its own, some of them hidden.

    Every head's columns are attended alone; a head that sees none adds nothing.
    """
    kv_heads = piece.keys.shape[1]
    groups = query.shape[1] // kv_heads
    out, lse, kernel = torch.zeros_like(query), None, ""
    for head, own in enumerate(piece.of_heads):
        ranges = [(a, b) for segment, a, b in own if seen[segment]]
        if not ranges:
            continue
        keys = columns(piece.keys[:, head : head + 1], ranges)
        values = columns(piece.values[:, head : head + 1], ranges)
        attend = attend_shared if len(keys) == 1 else attend_lse
        heads = slice(head * groups, (head + 1) * groups)
        part = attend(query[:, heads], keys, values, scale=scale)
        if lse is None:
            lse = part.lse.new_full(query.shape[:3], float("-inf"))
        out[:, heads], lse[:, heads], kernel = part.out, part.lse, part.kernel
    return [] if lse is None else [Attended(out, lse, kernel)]


def _own_tail(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: LayerPlan,
    segments: Segments,
    prompt_length: int,
    padding: torch.Tensor | None,
    scale: float,
) -> Attended:
    rows, length = query.shape[2], key.shape[2]
    visible = plan.visible
    restricted = visible is not None and not bool(
        visible[segments.last, segments.question] and visible[segments.question, segments.question]
    )
    if padding is None and not restricted and (rows == length or rows == 1):
        return attend_lse(query, key, value, scale=scale, causal=rows > 1)
    device = query.device
    row_index = torch.arange(length - rows, length, device=device).unsqueeze(1)
    column_index = torch.arange(length, device=device).unsqueeze(0)
    mask = (column_index <= row_index)[None, None]  # [1, 1, S, T]
    if visible is not None and restricted:
        names = torch.where(
            torch.arange(length, device=device) >= prompt_length - 1,
            segments.last,
            segments.question,
        )
        mask = mask & visible.to(device)[names[length - rows :]][:, names]
    if padding is not None:
        mask = mask & ~padding[:, None, None, :]
    # Padding rows see themselves, so that no row is empty; nobody reads them.
    mask = mask | (column_index == row_index)
    return attend_lse(query, key, value, scale=scale, mask=mask)

"""Attention of tail rows in one layer: what they read of the prefix, shared, stored or exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tempeval.engine.query_shift import shift_queries
from tempeval.engine.rows import attend_tail

if TYPE_CHECKING:
    from tempeval.engine.cache import TailCache
    from tempeval.engine.plan import EnginePlan


def attend_after_prefix(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cache: TailCache,
    layer: int,
    plan: EnginePlan,
    *,
    padding: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, str]:
    """Attend the cache's prefix and the own tail; rows of the prompt may read another prefix.

    Args:
        query: `[B, h, S, d]`, the newest S tail rows, without the plan's shift.
        key: `[B, h_kv, T, d]`, the whole tail.
        value: `[B, h_kv, T, d]`.
        cache: knows the prefix.
        layer: 0-based decoder layer.
        plan: the folded chain.
        padding: bool `[B, T]`, True on padding; None for none.
        scale: factor on the scores.

    Returns:
        `[B, h, S, d]` and the kernel's name.
    """
    own = plan.layers[layer]
    query = shift_queries(query, own.rotary, float(own.rotary.shift_scale_after))
    rows, columns = query.shape[2], key.shape[2]
    outs, kernel = [], ""
    for pieces, start, stop in cache.reads(layer, rows, columns):
        seen = columns - rows + stop
        out, kernel = attend_tail(
            query[:, :, start:stop],
            key[:, :, :seen],
            value[:, :, :seen],
            pieces=pieces,
            plan=own,
            segments=plan.segments,
            prompt_length=cache.prompt_length,
            padding=None if padding is None else padding[:, :seen],
            scale=scale,
        )
        outs.append(out)
    return (outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)), kernel

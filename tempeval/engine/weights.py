"""Measure the attention weights of a few rows of a layer: what rules of pruning and eviction see.

The kernels that attend return no weights, so these are computed beside them, for the rows that a
rule names and no others, block by block in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from tempeval.stages import Segments

# Most scores that are held at once, all heads together.
_BLOCK_SCORES = 1 << 24


def attention_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    allowed: torch.Tensor,
    *,
    columns: int,
    scale: float,
    per_head: bool = False,
    per_row: bool = False,
) -> torch.Tensor:
    """Compute the weights with which rows attend to the first `columns` of their keys.

    Args:
        query: `[1, h, R, d]`, after rotary and shifts.
        key: `[1, h_kv, T, d]`, everything that some row may attend to.
        allowed: bool `[R, T]`, or `[h_kv, R, T]` where heads hold different keys; True where a row
            attends to a key.
        columns: how many weights are handed on, those of the prefix.
        scale: factor on the scores.
        per_head: keep heads apart; else their mean.
        per_row: keep rows apart; else their mean.

    Returns:
        float32 (float64 for float64 inputs) `[columns]`, `[h, columns]`, `[R, columns]` or
        `[h, R, columns]`.
    """
    heads, rows = query.shape[1:3]
    kv_heads, total = key.shape[1:3]
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    keys = key[0].to(wide).transpose(-1, -2).unsqueeze(1)  # [h_kv, 1, d, T]
    step = max(1, _BLOCK_SCORES // max(heads * total, 1))
    blocks = []
    for start in range(0, rows, step):
        asking = query[0, :, start : start + step].to(wide)
        asking = torch.unflatten(asking, 0, (kv_heads, heads // kv_heads))  # [h_kv, groups, r, d]
        mask = allowed[..., start : start + step, :]
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
        scores = (asking @ keys * scale).masked_fill(~mask, float("-inf"))
        # A row that attends to nothing (a head that holds no key it may see) weighs nothing.
        weights = scores.softmax(-1).nan_to_num(0.0)[..., :columns].flatten(0, 1)
        blocks.append(weights if per_head else weights.mean(0, keepdim=True))
    whole = torch.cat(blocks, dim=1)  # [h or 1, R, columns]
    if not per_row:
        whole = whole.mean(1)
    return whole if per_head else whole[0]


def may_attend(
    rows: torch.Tensor,
    columns: torch.Tensor,
    visible: torch.Tensor | None,
    segment: torch.Tensor,
    segments: Segments,
    length: int,
    last: int,
) -> torch.Tensor:
    """Say which tokens attend to which in a layer: causally, and as stage `attention` allows.

    Args:
        rows: long `[R]`, indices of tokens: below `length` of the prefix, else after it.
        columns: long `[T]` (or `[h_kv, T]`), likewise.
        visible: bool `[K, K]`, or None for no restriction.
        segment: long `[P]`, segments of the prefix.
        segments: names.
        length: tokens of the prefix, P.
        last: index of the last token of the prompt.

    Returns:
        bool `[R, T]` (or `[h_kv, R, T]`).
    """
    allowed = columns.unsqueeze(-2) <= rows.unsqueeze(-1)
    if visible is None:
        return allowed

    def named(tokens: torch.Tensor) -> torch.Tensor:
        after = torch.where(tokens >= last, segments.last, segments.question)
        if not length:
            return after
        inside = segment.to(tokens.device)[tokens.clamp(max=length - 1)]
        return torch.where(tokens < length, inside, after)

    seen = visible.to(columns.device)[named(rows).unsqueeze(-1), named(columns).unsqueeze(-2)]
    return allowed & (seen | (columns.unsqueeze(-2) == rows.unsqueeze(-1)))

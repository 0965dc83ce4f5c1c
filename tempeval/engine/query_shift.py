"""Shift queries against keys: what stage `positions` asks for as `query_shift`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from tempeval.stages import RotaryPlan

#: Places along an axis: a slice where they are evenly spaced (a view, not a copy), else indices.
_Places: TypeAlias = "slice | torch.Tensor"


def shift_queries(
    query: torch.Tensor, rotary: RotaryPlan, scale: torch.Tensor | float
) -> torch.Tensor:
    """Rotate queries after rotary, as if their position were shifted; in place.

    The shift is in positions and is turned into radians by the final `inv_freq`, so it does not
    matter in which order a chain changes frequencies and shifts. Heads, rows and channels without
    a shift are not touched.

    Args:
        query: `[B, h, S, d]`, after rotary.
        rotary: the plan; `query_shift` is `[h, d/2]`.
        scale: positions per unit of shift, `[S]` or one number for all rows.

    Returns:
        The query.
    """
    if rotary.query_shift is None:
        return query
    shift = rotary.query_shift.to(query.device)
    heads = _places(shift.abs().sum(1))
    channels = _places(shift.abs().sum(0))
    if heads is None or channels is None:
        return query
    angle = shift[heads][:, channels].double() * rotary.inv_freq.to(query.device)[channels].double()
    whole = torch.full(query.shape[2:3], scale) if isinstance(scale, float) else scale
    for value in torch.unique(whole).tolist():
        rows = _places((whole == value).to(query.device)) if value != 0.0 else None
        if rows is not None:
            _rotate(query, heads, rows, channels, angle * value)
    return query


def _places(marked: torch.Tensor) -> _Places | None:
    """Return where a vector is not zero; None where that is nowhere."""
    found: list[int] = marked.nonzero().squeeze(1).tolist()
    if not found:
        return None
    step = found[1] - found[0] if len(found) > 1 else 1
    if found == list(range(found[0], found[-1] + 1, step)):
        return slice(found[0], found[-1] + 1, step)
    return torch.tensor(found, device=marked.device)


def _rotate(
    query: torch.Tensor, heads: _Places, rows: _Places, channels: _Places, angle: torch.Tensor
) -> None:
    """Turn channel pairs `(c, c + d/2)` of `[B, h, S, d]` by `[heads, channels]` radians."""
    half = query.shape[-1] // 2
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    cos = angle.cos().to(wide)[None, :, None]  # [1, heads, 1, channels]
    sin = angle.sin().to(wide)[None, :, None]
    part = query[:, heads][:, :, rows]
    low, high = part[..., :half], part[..., half:]
    a, b = low[..., channels].to(wide), high[..., channels].to(wide)
    turned = (a * cos - b * sin).to(query.dtype), (b * cos + a * sin).to(query.dtype)
    low[..., channels], high[..., channels] = turned
    if isinstance(heads, slice) and isinstance(rows, slice):
        return  # `part` is a view
    of_heads = torch.arange(query.shape[1], device=query.device)[heads]
    of_rows = torch.arange(query.shape[2], device=query.device)[rows]
    query[:, of_heads[:, None], of_rows] = part

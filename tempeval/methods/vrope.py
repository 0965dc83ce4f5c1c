"""VRoPE: each rotary channel measures a token's place in its frame from one of four corners.

Source: "VRoPE", arXiv 2502.11664v3 (EMNLP 2025), equations 6 to 9; index generator
github.com/johncaged/VRoPE, `vrope.py`. The first version of the paper was another method.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.base import Method
from tempeval.stages import AXIS_ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.stages import Geometry, Layout, RotaryPlan, RunFacts

ChannelOrder = Literal["code", "paper"]

#: Per channel (modulo 4): whether rows, and whether columns, are counted from the far end.
_CORNERS: dict[ChannelOrder, tuple[tuple[bool, bool], ...]] = {
    "code": ((False, False), (False, True), (True, False), (True, True)),
    "paper": ((False, False), (True, False), (True, True), (False, True)),
}


@dataclass(frozen=True)
class VRoPE(Method):
    """Replace all positions: text counts tokens, a frame of H x W tokens takes H + W - 1 positions.

    Channel i of cell (t, h, w) sits at `start + t * (H + W - 1)` plus the city-block distance from
    corner i mod 4 of the frame (see `vrope_positions`), so that every token of a frame lies, over
    the channels, equally far from the text, and text goes on where the last frame ends.

    What counts as a frame of H x W tokens: the prefix is read from its first token to its last,
    and a maximal run of consecutive tokens of one pathway that have a place in its grid is a video
    of the extents of its cells (T, H, W), where a newline that ends a row is one more column. All
    else is text: the CLS token of a frame, so that each frame after one is a video of T = 1, and
    the newline that ends a video. An image is a video of T = 1.

    Afterwards no channel encodes time alone, on M-RoPE models either: later methods meet a 1-D
    plan (`AXIS_ALL`) whose `step` is H + W - 1, plus the text tokens between two frames. Moving
    all channels by that much is one temporal grid, so PAS after it is PAS-1D.

    The paper trains its models with these positions. On a checkpoint that was not (see
    `trained_with` in its `config.json`), rows are labelled "swap, untrained".

    Differs from the paper: equation 9 lists the corners as v1, v2, v3, v4, the code has v1, v4,
    v2, v3. Without released weights neither is wrong; `channel_order` chooses.

    Attributes:
        channel_order: `code` or `paper`.
    """

    name: ClassVar[str] = "vrope"
    modifies: ClassVar[frozenset[str]] = frozenset({"axis", "positions"})

    channel_order: ChannelOrder = "code"

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Say so when the checkpoint was not trained with these positions."""
        return () if self.spec() in facts.trained_with else ("swap, untrained",)

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Replace the positions of the prefix, and the one at which text goes on."""
        half = rotary.positions.shape[1]
        positions, next_position = vrope_positions(
            layout_segments(layout), half, channel_order=self.channel_order
        )
        positions = positions.double().to(rotary.positions.device)
        return replace(
            rotary,
            positions=positions,
            axis=torch.full_like(rotary.axis, AXIS_ALL),
            next_position=float(next_position),
            step=_positions_per_grid(positions, layout),
        )


def vrope_positions(
    segments: Sequence[Sequence[Any]],
    half_head_dim: int,
    *,
    channel_order: ChannelOrder = "code",
) -> tuple[torch.Tensor, int]:
    """Compute the positions of a prompt.

    With start s of a video and L = h + w - 1, cell (i, j) of frame t sits, in channels c = 0 to 3
    (modulo 4, in the order of the code), at `s + t * L` plus `i + j`, `i + (w-1-j)`, `(h-1-i) + j`
    and `(h-1-i) + (w-1-j)`; the next token sits at `s + T * L`.

    Args:
        segments: the prompt in order: `("text", n)`, n tokens from 0, or `("video", t, h, w)`, the
            tokens of t frames of h rows and w columns, each from 1. An image is a video of t = 1.
            NumPy's whole numbers and torch's of no dimension are accepted too.
        half_head_dim: rotary channels, half the size of a head.
        channel_order: order of the corners over channels, of the `code` or of the `paper`.

    Returns:
        Positions, long `[S, half_head_dim]`, and the position of the next token.

    Raises:
        InvalidSetting: for a segment, a size or an order that is not accepted.
    """
    channels = _whole(half_head_dim)
    if channels is None or channels < 1:
        raise InvalidSetting(
            f"half_head_dim={half_head_dim!r} is not accepted; give the number of rotary channels, "
            "a whole number from 1"
        )
    if channel_order not in _CORNERS:
        raise InvalidSetting(
            f"channel_order={channel_order!r} is not one of {', '.join(map(repr, _CORNERS))}"
        )
    pieces = [torch.zeros(0, 4, dtype=torch.long)]
    start = 0
    for number, segment in enumerate(segments):
        kind, sizes = _read_segment(number, segment)
        if kind == "text":
            (count,) = sizes
            pieces.append(torch.arange(start, start + count).unsqueeze(1).expand(count, 4))
            start += count
            continue
        frames, rows, columns = sizes
        length = rows + columns - 1
        starts = start + length * torch.arange(frames)
        # [t, 1, 1] + [h * w, 4] -> [t * h * w, 4]
        cells = starts.view(frames, 1, 1) + _distances(rows, columns, channel_order)
        pieces.append(cells.reshape(-1, 4))
        start += frames * length
    corner_of_channel = torch.arange(channels) % 4
    return torch.cat(pieces)[:, corner_of_channel], start


def layout_segments(layout: Layout) -> list[tuple[Any, ...]]:
    """Read a prefix as the segments of `vrope_positions` (the rule is in `VRoPE`).

    Raises:
        UnsupportedModel: if a run of a visual's tokens is not made of whole frames, row by row.
    """
    index = layout.grid_index.cpu()
    numbers, counts = torch.unique_consecutive(index[:, 0], return_counts=True)
    segments: list[tuple[Any, ...]] = []
    start = 0
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if number < 0:
            segments.append(("text", count))
        else:
            segments.append(("video", *_extents(index[start : start + count, 1:], start)))
        start += count
    return segments


def _extents(cells: torch.Tensor, start: int) -> tuple[int, int, int]:
    """Return (T, H, W) of consecutive cells `[n, 3]`."""
    corner = cells.amin(dim=0)
    frames, rows, columns = (cells.amax(dim=0) - corner + 1).tolist()
    strides = torch.tensor([rows * columns, columns, 1])
    order = ((cells - corner) * strides).sum(dim=1)
    if frames * rows * columns != len(cells) or not torch.equal(order, torch.arange(len(cells))):
        raise UnsupportedModel(
            f"vrope needs whole frames of tokens, row by row; tokens {start} to "
            f"{start + len(cells) - 1} of the prompt are {len(cells)} of {frames} x {rows} x "
            f"{columns} cells, or in another order. Leave out the method that drops or moves tokens"
        )
    return frames, rows, columns


def _distances(rows: int, columns: int, order: ChannelOrder) -> torch.Tensor:
    """Return city-block distances of a frame's cells from its corners, long `[h * w, 4]`."""
    down = torch.arange(rows).view(rows, 1)
    right = torch.arange(columns).view(1, columns)
    corners = [
        (rows - 1 - down if far_row else down) + (columns - 1 - right if far_column else right)
        for far_row, far_column in _CORNERS[order]
    ]
    return torch.stack(corners, dim=-1).reshape(rows * columns, 4)


def _positions_per_grid(positions: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return float64 `[P]`, positions from a visual's cell to the same cell of its next grid."""
    index = layout.grid_index.to(positions.device)
    segment = layout.segment.to(positions.device)
    step = torch.zeros(len(positions), dtype=torch.float64, device=positions.device)
    for number in range(len(layout.visuals)):
        cells = index[:, 0] == number
        firsts = positions[cells & (index[:, 2:] == 0).all(dim=1), 0]
        if len(firsts) > 1:
            per_grid = float(firsts[1] - firsts[0])
        else:
            per_grid = float(index[cells, 2].max() + index[cells, 3].max() + 1)
        # CLS and newline tokens have no cell, but belong to their frame.
        step[torch.isin(segment, segment[cells])] = per_grid
    return step


def _read_segment(number: int, segment: Sequence[Any]) -> tuple[str, list[int]]:
    least = {"text": (0,), "video": (1, 1, 1)}
    kind, *given = segment if isinstance(segment, (tuple, list)) and segment else (None,)
    accepted = least.get(kind, ()) if isinstance(kind, str) else ()
    sizes = [size for size in map(_whole, given) if size is not None]
    fits = len(sizes) == len(given) == len(accepted) > 0 and all(
        size >= low for size, low in zip(sizes, accepted, strict=True)
    )
    if not fits:
        raise InvalidSetting(
            f"segment {number} is {segment!r}; accepted are ('text', n) with n from 0 and "
            "('video', t, h, w) with t, h and w from 1, all whole numbers"
        )
    return str(kind), sizes


def _whole(value: Any) -> int | None:
    """Return a whole number of any library; None for anything else, truth values included."""
    if isinstance(value, bool) or getattr(value, "dtype", None) in (bool, torch.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None

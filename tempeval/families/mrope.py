"""M-RoPE position ids of Qwen2-VL and Qwen2.5-VL, our own so that a host upgrade can't move them.

transformers 5.23 lets the text after a video continue inside the video's temporal range
(`current_pos += max(h, w)`); the checkpoints predate that and were trained with the text after the
largest position of any axis. Both rules are here; the rule used is recorded with every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

PositionRule = Literal["original", "native"]
POSITION_RULES: tuple[PositionRule, ...] = ("original", "native")


@dataclass(frozen=True)
class TextSpan:
    """A run of `length` text tokens."""

    length: int


@dataclass(frozen=True)
class VisualSpan:
    """A video or image of `t x h x w` merged tokens, in that order.

    Attributes:
        t, h, w: temporal grids, rows and columns after merging; an image has t = 1.
        interval: positions per temporal grid (`tokens_per_second * second_per_grid`; 1 for
            Qwen2-VL and for images).
    """

    t: int
    h: int
    w: int
    interval: float = 1.0

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.t * self.h * self.w


def mrope_positions(
    spans: Sequence[TextSpan | VisualSpan], rule: PositionRule = "original"
) -> tuple[torch.Tensor, int]:
    """Compute temporal, height and width positions of a prompt.

    Source: transformers 5.23.0 `Qwen2_5_VLModel.get_rope_index` for `native`; the 4.x releases
    (text continues after the maximum over all axes) for `original`.

    Args:
        spans: the prompt as runs of text and visuals, in order.
        rule: where text continues after a visual: `original` after its largest position on any
            axis, `native` after `max(h, w)` positions, as the installed transformers does.

    Returns:
        Positions, long `[3, L]` (temporal, height, width), and the position of the next token.

    Raises:
        InvalidSetting: if the rule is unknown.
    """
    if rule not in POSITION_RULES:
        raise InvalidSetting(f"position_rule={rule!r} is not one of 'original', 'native'")
    pieces: list[torch.Tensor] = []
    start = 0
    for span in spans:
        if isinstance(span, TextSpan):
            pieces.append(torch.arange(start, start + span.length).expand(3, -1))
            start += span.length
            continue
        t_pos = (torch.arange(span.t) * span.interval).long()
        grid = torch.meshgrid(t_pos, torch.arange(span.h), torch.arange(span.w), indexing="ij")
        positions = torch.stack(grid).reshape(3, -1) + start
        pieces.append(positions)
        if rule == "original":
            start = int(positions.max()) + 1
        else:
            start += max(span.h, span.w)
    if not pieces:
        return torch.zeros(3, 0, dtype=torch.long), 0
    return torch.cat(pieces, dim=1), start

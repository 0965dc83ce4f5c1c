"""What an engine plan costs and where it puts frames: operations, and positions over time."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import TYPE_CHECKING

import torch

from tempeval.engine.cache import segment_ranges
from tempeval.stages import AXIS_ALL

if TYPE_CHECKING:
    from tempeval.engine.plan import EnginePlan
    from tempeval.stages import Geometry


def distinct_temporal_ids(plan: EnginePlan) -> int | None:
    """Count different temporal positions among visual tokens, after stage `positions`."""
    rotary = plan.layers[0].rotary
    channels = rotary.temporal_channels.nonzero()
    if not len(channels):
        return None
    visual = plan.layout.is_visual.to(rotary.positions.device)
    times = rotary.positions[visual, int(channels[0])]
    return len(set(times.tolist()))


@dataclass(frozen=True)
class TemporalStep:
    """How far apart two neighbouring temporal grids are in rotary space.

    Attributes:
        positions: from one to the next.
        radians: by which the fastest channel that encodes time turns in between.
    """

    positions: float
    radians: float

    @property
    def sub_nyquist(self) -> bool:
        """Whether the fastest channel turns by more than pi: a step then looks like another."""
        return self.radians > pi


def temporal_step(plan: EnginePlan) -> TemporalStep | None:
    """Return the largest step from a temporal grid to the next, after stage `positions`.

    Channels that encode time are those of M-RoPE's temporal section, and all where positions count
    tokens. None without a video of several grids.

    Source: PAS, arXiv 2511.10979 (sampling below the Nyquist rate of the temporal channels).
    """
    rotary, layout = plan.layers[0].rotary, plan.layout
    channels = rotary.temporal_channels
    if not bool(channels.any()):
        channels = rotary.axis == AXIS_ALL
    several = [number for number, (grids, _, _) in enumerate(layout.visuals) if grids > 1]
    of_videos = torch.isin(
        layout.grid_index[:, 0], torch.tensor(several, dtype=torch.long).to(layout.grid_index)
    )
    steps = rotary.step.to(of_videos.device)[of_videos]
    if not len(steps) or not bool(channels.any()):
        return None
    step = float(steps.max())
    return TemporalStep(step, step * float(rotary.inv_freq[channels].max()))


def text_flops(plan: EnginePlan, geometry: Geometry, question_length: int) -> float:
    """Count floating-point operations of prefix and question in the text stack.

    Two operations per multiply-add; linear layers (with low-rank changes that are kept) and the
    two attention products, restricted to the rows and columns that the plan leaves. Embedding,
    norms, rotary, softmax and the output head are not counted. That the engine leaves out the last
    layer's attention and MLP on prefix rows is its own saving, the same for every method, and is
    not subtracted.

    Source: counted from the shapes of the linear maps and of the two attention products.

    Args:
        plan: rows and visibility per layer.
        geometry: sizes of the text stack.
        question_length: tokens after the prefix.
    """
    width = geometry.num_heads * geometry.head_dim
    kv_width = geometry.num_kv_heads * geometry.head_dim
    hidden = geometry.hidden_size
    weights = 2 * hidden * width + 2 * hidden * kv_width + 3 * hidden * geometry.intermediate_size
    total = 0.0
    memo: dict[tuple[int, bytes | None], float] = {}
    for number, layer in enumerate(plan.layers):
        rows = len(layer.segment)
        mask = None if layer.visible is None else layer.visible.numpy().tobytes()
        if (rows, mask) not in memo:
            pairs = _pairs(layer.segment, layer.visible, plan, question_length)
            memo[rows, mask] = 2.0 * weights * (rows + question_length) + 4.0 * width * pairs
        total += memo[rows, mask]
        if plan.low_rank is not None:
            total += plan.low_rank.flops_in(number) * (rows + question_length)
    return total


def _pairs(
    segment: torch.Tensor, visible: torch.Tensor | None, plan: EnginePlan, question: int
) -> float:
    rows = len(segment)
    if visible is None:
        whole = rows + question
        return whole * (whole + 1) / 2
    ranges = segment_ranges(segment)
    names = plan.segments
    pairs = 0.0
    for number, (own, start, stop) in enumerate(ranges):
        size = stop - start
        pairs += size * (size + 1) / 2
        pairs += size * sum(b - a for s, a, b in ranges[:number] if bool(visible[own, s]))
    for own, count in ((names.question, question - 1), (names.last, 1)):
        pairs += count * sum(b - a for s, a, b in ranges if bool(visible[own, s]))
    asked = question - 1
    pairs += asked * (asked + 1) / 2 + 1
    if bool(visible[names.last, names.question]):
        pairs += asked
    return pairs


def prefill_flops(
    plan: EnginePlan, geometry: Geometry, question_length: int, vision_flops: float
) -> float:
    """Return the analytic prefill cost: `vision_flops`, of all before it, plus `text_flops`."""
    return vision_flops + text_flops(plan, geometry, question_length)

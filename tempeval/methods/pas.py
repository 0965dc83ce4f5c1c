"""PAS: query heads look at the video from slightly different times: smoother attention in time.

Source: "Phase Aggregated Smoothing", arXiv 2511.10979 (CVPR 2026), sections as quoted in the
docstrings; the released demo (github.com/Bowen-Sun-0728/PAS) settles the head grouping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.base import Method
from tempeval.stages import AXIS_ALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.stages import Geometry, Layout, RotaryPlan, RunFacts


@dataclass(frozen=True)
class PAS(Method):
    """Rotate the temporal channels of video-token queries by a phase per head group.

    After the native rotary embedding, in every layer, the query of head h at a visual row is
    rotated on each temporal channel j by `inv_freq[j] * offsets[group(h)] * u`; keys, values, text
    rows and spatial channels stay. This equals native rotary with the query's temporal position
    moved by `offsets[group(h)] * u`.

    Where positions are one-dimensional (LLaVA-OneVision, Video-LLaVA, or after `vrope`), no channel
    encodes time alone: there all channels shift, by `offsets[group(h)]` times the positions from a
    frame to the next one. The paper does not have this variant; its rows say "PAS-1D (ours)".

    Differs from the released demo, which rebuilds the frequencies from the section length and
    pairs neighbouring channels: here the model's own `inv_freq` and pairing (i, i + d/2) are used.

    Attributes:
        offsets: phase per head group, in units of `unit`; the number of groups K is its length.
        unit: `bin` (one temporal grid of the merged video tokens, the paper's; with
            one-dimensional positions, one frame of tokens) or `position`.
        grouping: `interleaved` (head h is in group h mod K, as the demo) or `contiguous`.
        rows: `video` (the paper's: visual rows in prefill only) or `all` (every query row, also
            of generated tokens; an ablation).
    """

    name: ClassVar[str] = "pas"
    modifies: ClassVar[frozenset[str]] = frozenset({"query_shift"})

    offsets: tuple[float, ...] = (0.0, 0.5)
    unit: Literal["bin", "position"] = "bin"
    grouping: Literal["interleaved", "contiguous"] = "interleaved"
    rows: Literal["video", "all"] = "video"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.offsets:
            raise InvalidSetting("pas.offsets is empty; give one phase per head group, as 0/0.5")

    def groups(self, num_heads: int) -> torch.Tensor:
        """Return long `[h]`, the group of each query head."""
        heads = torch.arange(num_heads)
        count = len(self.offsets)
        if self.grouping == "interleaved":
            return heads % count
        return heads * count // num_heads

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Check that every group gets a head."""
        count, geometry = len(self.offsets), facts.geometry
        if count > geometry.num_heads:
            raise InvalidSetting(
                f"pas.offsets has {count} groups, but the model has {geometry.num_heads} query "
                f"heads; give at most {geometry.num_heads} offsets"
            )
        return {"num_groups": count, "offset_of_head": self._per_head(geometry.num_heads).tolist()}

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Say so when it is the variant for one-dimensional positions, or when nothing shifts."""
        variant = () if facts.axes else ("PAS-1D (ours)",)
        return variant if any(self.offsets) else (*variant, "inert: all offsets 0")

    def measured(self, usages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Say where one grid's step turns the fastest temporal channel by more than pi.

        Smoothing cannot help there: the paper's condition of failure.
        """
        told = [bool(of["sub_nyquist"]) for of in usages if of.get("sub_nyquist") is not None]
        below = sum(told)
        if not below:
            return ()
        return ("sub-Nyquist" if below == len(told) else f"sub-Nyquist: {below} of {len(told)}",)

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Add the phases to the query positions of visual rows."""
        temporal = rotary.temporal_channels
        if not bool(temporal.any()):
            temporal = rotary.axis == AXIS_ALL
        if not bool(temporal.any()):
            raise UnsupportedModel(
                "pas needs rotary channels that encode time (M-RoPE) or one-dimensional positions; "
                f"this plan's axes are {sorted(set(rotary.axis.tolist()))}"
            )
        per_head = self._per_head(geometry.num_heads).to(rotary.positions.device)
        shift = per_head[:, None] * temporal.double()[None, :]
        unit = rotary.step if self.unit == "bin" else torch.ones_like(rotary.step)
        visual = layout.is_visual.to(rotary.positions.device)
        scale, after = torch.where(visual, unit, 0.0), 0.0
        if self.rows == "all":
            # Text has no bin of its own; the last visual token's bin stands in for it.
            own = unit[visual]
            after = float(own[-1]) if len(own) else 0.0
            scale = torch.where(visual, unit, after)
        return replace(rotary, query_shift=shift, shift_scale=scale, shift_scale_after=after)

    def _per_head(self, num_heads: int) -> torch.Tensor:
        return torch.tensor(self.offsets, dtype=torch.float64)[self.groups(num_heads)]

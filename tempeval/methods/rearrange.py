"""Rearrangement: more frames than the vision tower takes at once, in strided subsequences.

Source: INTP-Video-LLMs, arXiv 2409.12963 (no public code). The permutation is that of
"frame 1 with frame 3, frame 2 with frame 4" for two subsequences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.base import Method

if TYPE_CHECKING:
    from tempeval.stages import RunFacts
    from tempeval.video.clip import FramePlan

#: Frames per subsequence of the paper, which are the frames over which Video-LLaVA's tower attends.
PAPER_GROUP = 8


@dataclass(frozen=True)
class Rearrange(Method):
    """Encode F = N * m frames as m subsequences with a stride of m, and put them back in time.

    Subsequence g holds frames g, g + m, g + 2m, ..., so that each spans the whole video, as the
    frames did that the tower was trained on; a tower that attends over blocks of N frames would
    otherwise see m short pieces. The text stack meets all frames in the order of time. With F = N
    there is one subsequence and nothing changes.

    Where the tower sees single frames (Video-LLaVA's Hugging Face port, which lacks the temporal
    attention, and LLaVA-OneVision), encoding frames together or apart is the same, and the method
    is refused.

    On Qwen-VL, which merges two neighbouring frames into one temporal grid and attends within it,
    subsequences of N = 8 frames change which frames are merged: frame f with frame f + m. Grid k
    of subsequence g comes at place k * m + g, with the temporal id of that place, which is up to
    (m - 1) / 2 frames from the mean time of its two frames. The paper does not have this variant;
    its rows say "rearranged within temporal grids (ours), ids up to 1.5 frames off".

    Attributes:
        frames_per_group: the paper's N; None for the frames over which the tower attends, and for
            the paper's 8 where these are merged into one temporal grid.
        allow_inert: accept a tower on which nothing changes, such as to show that nothing does.
    """

    name: ClassVar[str] = "rearrange"
    modifies: ClassVar[frozenset[str]] = frozenset({"groups"})

    frames_per_group: int | None = None
    allow_inert: bool = False

    def __post_init__(self) -> None:
        if self.frames_per_group is not None and self.frames_per_group < 1:
            raise InvalidSetting(
                f"rearrange.frames_per_group={self.frames_per_group}; accepted: 1 or more frames"
            )

    def bind(self, facts: RunFacts) -> Rearrange:
        """Take the number of frames per group from the tower, where none is set."""
        if facts.frames_per_block == 1:
            return replace(self, frames_per_group=None)  # one group, the same tokens
        if self.frames_per_group is not None:
            return self
        merged = facts.frames_per_block == facts.frames_per_grid
        return replace(self, frames_per_group=PAPER_GROUP if merged else facts.frames_per_block)

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Check that the tower makes a difference, and that frames divide into groups.

        Raises:
            UnsupportedModel: on a tower that sees single frames, unless `allow_inert` is set.
        """
        block = facts.frames_per_block
        if block == 1 and not self.allow_inert:
            raise UnsupportedModel(
                "rearrange is inert on this model: its vision tower encodes every frame by itself, "
                "so it does not matter which frames are encoded together, and putting them back in "
                "order undoes everything. Use a model whose tower attends over frames (the "
                "original Video-LLaVA checkpoint), or set rearrange.allow_inert=true"
            )
        size = self._size(facts)
        if size % block:
            raise InvalidSetting(
                f"rearrange.frames_per_group={size} is not a multiple of the {block} frames over "
                f"which the vision tower attends; give {block} or a multiple of it"
            )
        return {
            "frames_per_group": size,
            "num_groups": group_count(facts.num_frames, size),
            "inert": block == 1,
        }

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Say so where it is the variant for towers that merge frames, or changes nothing."""
        if facts.frames_per_block == 1:
            return ("inert",)
        if facts.num_frames == self._size(facts):
            return ("one group, nothing rearranged",)
        if facts.frames_per_block == facts.frames_per_grid:
            groups = group_count(facts.num_frames, self._size(facts))
            return (
                "rearranged within temporal grids (ours), ids up to "
                f"{(groups - 1) / 2:g} frames off",
            )
        return ()

    def frames(self, plan: FramePlan) -> FramePlan:
        """Set the number of groups and the frames of each; before `bind` they may not be known.

        A number of frames that does not divide into groups is refused by `resolve`.

        Raises:
            InvalidSetting: if frames are sampled at a rate.
        """
        if plan.sampling.rule == "fps":
            raise InvalidSetting(
                "rearrange needs the same number of frames of every video, and fps="
                f"{plan.sampling.fps} gives each its own; leave fps out and give num_frames"
            )
        if self.frames_per_group is None:
            return plan
        return replace(
            plan,
            num_groups=max(plan.sampling.num_frames // self.frames_per_group, 1),
            unit=lcm(plan.unit, self.frames_per_group),
        )

    def _size(self, facts: RunFacts) -> int:
        if facts.frames_per_block == 1:
            return facts.num_frames
        bound = self.bind(facts).frames_per_group
        return PAPER_GROUP if bound is None else bound


def group_count(num_frames: int, frames_per_group: int) -> int:
    """Return m of F = N * m.

    Args:
        num_frames: F.
        frames_per_group: N.

    Raises:
        InvalidSetting: if F is no multiple of N, naming the nearest one that is.
    """
    groups, rest = divmod(num_frames, frames_per_group)
    if num_frames > 0 and not rest:
        return groups
    below, above = groups * frames_per_group, (groups + 1) * frames_per_group
    nearest = str(above)
    if below and 2 * rest == frames_per_group:
        nearest = f"{below} or {above}"
    elif below and 2 * rest < frames_per_group:
        nearest = str(below)
    raise InvalidSetting(
        f"rearrange: num_frames={num_frames} is not {frames_per_group} x m, frames per group times "
        f"a whole number of groups; the nearest feasible num_frames is {nearest}"
    )


def strided_permutation(
    num_frames: int, frames_per_group: int = PAPER_GROUP
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the order in which frames are encoded, and the one that brings them back.

    With m = F / N groups, `perm[g * N + j] = g + m * j` and `inv[f] = (f % m) * N + f // m`.

    Args:
        num_frames: F, a multiple of N.
        frames_per_group: N.

    Returns:
        `perm` and `inv`, long `[F]`: `frames[perm]` is fed to the tower, and its output `out` is
        chronological as `out[inv]`.

    Raises:
        InvalidSetting: if F is no multiple of N, naming the nearest one that is.
    """
    groups = group_count(num_frames, frames_per_group)
    # [N, m] of frame j * m + g, read column by column
    perm = torch.arange(num_frames).view(frames_per_group, groups).T.reshape(-1)
    inv = torch.arange(num_frames).view(groups, frames_per_group).T.reshape(-1)
    return perm, inv

"""Order probes: does a model read time from positions, or from the order in which tokens come?

Source: "Causality Matters", arXiv 2508.11576 (AAAI 2026): "Reverse PE" gives frames 1..N the
temporal ids N..1; "Reverse Order" feeds frames N..1, each with its own original id. In the first
only positions change, in the second only what causal attention lets a frame see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.base import Method
from tempeval.stages import AXIS_ALL

if TYPE_CHECKING:
    from tempeval.stages import Geometry, Layout, RotaryPlan, RunFacts, VisualTokens


@dataclass(frozen=True)
class ReversePE(Method):
    """Frames 1..N in their order, with the temporal ids N..1.

    A frame is a temporal grid (in Qwen-VL two sampled frames, the paper's "effective frame"). On
    M-RoPE the temporal channels of its tokens change; height and width stay. Where positions are
    one-dimensional, frames change places block by block: token k of frame t takes the position of
    token k of frame N + 1 - t, newlines and CLS included; the newline that ends a video keeps its
    own. Every visual is reversed by itself; an image is one frame and stays.
    """

    name: ClassVar[str] = "reverse_pe"
    modifies: ClassVar[frozenset[str]] = frozenset({"permutation"})

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Refuse a plan with one temporal grid: there is nothing to reverse."""
        return {"temporal_grids": check_grids(self.name, facts)}

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Reverse the temporal ids of every visual."""
        return with_reversed_times(rotary, layout)


@dataclass(frozen=True)
class ReverseOrder(Method):
    """Frames N..1, each with its own original temporal id.

    The order is reversed in stage `tokens`, on whole temporal grids: the vision tower and the
    pairs of frames that a grid of Qwen-VL merges see the video as it is, and only the text stack,
    where attention is causal, meets it backwards. (Reversing the sampled frames instead would also
    turn each pair around.) Stage `positions` then reverses the ids as `reverse_pe` does, so that
    each frame has the position that it has without the method.

    Images stay. Where a visual has several pathways, each is reversed by itself. Segments are
    numbered as tokens come, so "last frame" of a chain such as staged sparse attention is the
    video's first.
    """

    name: ClassVar[str] = "reverse_order"
    modifies: ClassVar[frozenset[str]] = frozenset({"grid_order", "permutation"})

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Refuse a plan with one temporal grid: there is nothing to reverse."""
        return {"temporal_grids": check_grids(self.name, facts)}

    def tokens(self, tokens: VisualTokens) -> VisualTokens:
        """Reverse the temporal grids of a video."""
        return tokens if tokens.kind == "image" else with_reversed_grids(tokens)

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Give each frame back the temporal id that it had."""
        return with_reversed_times(rotary, layout)


def check_grids(name: str, facts: RunFacts) -> int:
    """Return the number of temporal grids that are planned per video.

    Raises:
        InvalidSetting: if there is only one.
    """
    grids = -(-facts.num_frames // facts.frames_per_grid)
    if grids < 2:
        raise InvalidSetting(
            f"{name} has no effect on num_frames={facts.num_frames}: this model merges "
            f"{facts.frames_per_grid} frames into one temporal grid; give at least "
            f"{facts.frames_per_grid + 1}"
        )
    return grids


def with_reversed_grids(tokens: VisualTokens) -> VisualTokens:
    """Return the tokens with the temporal grids of every pathway in reverse, lead tokens along.

    Raises:
        UnsupportedModel: if the pathways do not add up to the tokens.
    """
    sizes = [t * (tokens.lead + h * w) for t, h, w in (run.grid for run in tokens.runs)]
    features = None if tokens.features is None else tokens.features.flip(0)
    if tokens.cells is not None:
        return replace(_with_reversed_cells(tokens, sizes), features=features)
    if sum(sizes) != tokens.num_tokens:
        raise UnsupportedModel(
            f"reverse_order cannot place {tokens.num_tokens} visual tokens in grids "
            f"{[run.grid for run in tokens.runs]} with {tokens.lead} lead tokens each; leave out "
            "the method that dropped tokens"
        )
    pieces = [
        piece.reshape(run.grid[0], -1, piece.shape[1]).flip(0).reshape(piece.shape)
        for piece, run in zip(torch.split(tokens.embeddings, sizes), tokens.runs, strict=True)
    ]
    return replace(tokens, embeddings=torch.cat(pieces), features=features)


def _with_reversed_cells(tokens: VisualTokens, sizes: list[int]) -> VisualTokens:
    """Return an irregular subset of cells with its grids in reverse; within one as it was."""
    cells, places = tokens.cells, tokens.places
    turned, grid = torch.empty_like(places), torch.empty_like(places)
    start = before = 0
    for size, run in zip(sizes, tokens.runs, strict=True):
        own = (places >= start) & (places < start + size)
        each = size // run.grid[0]
        reverse = run.grid[0] - 1 - (places[own] - start) // each
        turned[own] = start + reverse * each + (places[own] - start) % each
        grid[own] = before + reverse
        start, before = start + size, before + run.grid[0]
    order = grid.argsort(stable=True)
    return replace(
        tokens,
        embeddings=tokens.embeddings[order.to(tokens.embeddings.device)],
        cells=None if cells is None else torch.where(cells < 0, -1, turned)[order],
        anchors=turned[order],
    )


def with_reversed_times(rotary: RotaryPlan, layout: Layout) -> RotaryPlan:
    """Return the plan with the temporal ids of every pathway in reverse.

    Raises:
        UnsupportedModel: if frames of one pathway differ in size.
    """
    channels = rotary.temporal_channels
    if not bool(channels.any()):
        channels = rotary.axis == AXIS_ALL
    source = torch.arange(layout.length)
    segment = layout.segment.cpu()
    first = 1
    for frames, _, _ in layout.visuals:
        blocks = [(segment == first + t).nonzero().squeeze(1) for t in range(frames)]
        first += frames
        size = _block_size(blocks, layout)
        for block, other in zip(blocks, reversed(blocks), strict=True):
            source[block[:size]] = other[:size]
    positions = rotary.positions.clone()
    taken = rotary.positions[source.to(positions.device)]
    positions[:, channels] = taken[:, channels]
    return replace(rotary, positions=positions)


def _block_size(blocks: list[torch.Tensor], layout: Layout) -> int:
    """Return the tokens per frame, without the newline that ends a video (in its last frame)."""
    size = len(blocks[0])
    if len(blocks) == 1:
        return size
    end = blocks[-1][size:].to(layout.grid_index.device)
    whole = all(len(block) == size for block in blocks[:-1]) and len(blocks[-1]) >= size
    if not whole or bool((layout.grid_index[end, 0] >= 0).any()):
        raise UnsupportedModel(
            "reversing temporal ids needs frames of equal size; the frames of one visual have "
            f"{[len(block) for block in blocks]} tokens. Leave out the method that drops tokens"
        )
    return size

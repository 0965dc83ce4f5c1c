"""A chain folded for one layout: everything the attachment needs, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tempeval.errors import InvalidSetting
from tempeval.stages import Segments

if TYPE_CHECKING:
    from tempeval.engine.low_rank import LowRank
    from tempeval.methods.base import Chain
    from tempeval.stages import Codec, Geometry, Layout, RotaryPlan


@dataclass(frozen=True)
class LayerPlan:
    """What one decoder layer does.

    Attributes:
        rows: long `[P_l]`, prefix rows present; None for all.
        segment: long `[P_l]`, segment of each row present.
        visible: bool `[K, K]` from stage `attention`; None when nothing is restricted.
        codec: how the layer's prefix keys and values are held; None for as they are.
        rotary: positions in force.
    """

    rows: torch.Tensor | None
    segment: torch.Tensor
    visible: torch.Tensor | None
    codec: Codec | None
    rotary: RotaryPlan


@dataclass(frozen=True)
class EnginePlan:
    """A chain folded for one layout.

    Attributes:
        layout: the prefix.
        segments: names of the segments.
        layers: one plan per decoder layer.
        exact_prefill: whether the prompt reads keys and values as they were before the codecs.
        low_rank: what is added to the text stack's linear maps; None for nothing.
    """

    layout: Layout
    segments: Segments
    layers: tuple[LayerPlan, ...]
    exact_prefill: bool = False
    low_rank: LowRank | None = None

    def visual_tokens_in(self, layer: int) -> int:
        """Count the visual tokens present in `layer`."""
        rows = self.layers[layer].rows
        visual = self.layout.is_visual
        return int(visual.sum() if rows is None else visual[rows].sum())

    @property
    def stores(self) -> bool:
        """Whether some layer holds its prefix by a codec."""
        return any(layer.codec is not None for layer in self.layers)

    def inert_store(self, question: int) -> str | None:
        """Say so where the codecs hold nothing of a prompt in few bits; None where they do.

        A prompt without visuals has no prefix that they could miss.

        Args:
            question: tokens after the prefix.
        """
        if not self.stores or not self.layout.length:
            return None
        codec = ""
        for layer in self.layers:
            if layer.codec is None:
                continue
            if any(layer.codec.first_in_few_bits(len(layer.segment), question)):
                return None
            codec = str(layer.codec)
        return (
            f"inert: {self.layout.length} tokens of prefix and {question} of question, {codec}: "
            "the window that stays in full precision holds the whole prompt; lower "
            "residual_length or group_size, or give the prompt more visual tokens (frames or "
            "pixels)"
        )

    @property
    def token_layers(self) -> float:
        """Visual tokens present, averaged over layers."""
        depth = len(self.layers)
        return sum(self.visual_tokens_in(layer) for layer in range(depth)) / depth


def make_plan(chain: Chain, layout: Layout, geometry: Geometry) -> EnginePlan:
    """Fold stages `positions`, `attention`, `prune` and `kv_cache` of a chain for one layout.

    Raises:
        InvalidSetting: if `prune` brings a segment back in a later layer, or `attention` hides
            a segment from itself (every row must see its own token).
    """
    segments = Segments(num_frames=layout.num_frames, num_layers=geometry.num_layers)
    rotary = chain.positions(layout.rotary, layout, geometry)
    device = layout.segment.device
    before = torch.ones(segments.size, dtype=torch.bool)
    layers = []
    for layer in range(geometry.num_layers):
        kept = chain.prune(before.clone(), layer, segments)
        if bool((kept & ~before).any()):
            raise InvalidSetting(
                f"{chain.spec}: a segment that left before layer {layer} comes back in it; "
                "stage prune must be monotone over layers"
            )
        before = kept
        everything = torch.ones(segments.size, segments.size, dtype=torch.bool)
        visible = chain.attention(everything, layer, segments)
        if not bool(visible.diagonal().all()):
            raise InvalidSetting(
                f"{chain.spec}: in layer {layer} a segment may not attend to itself; stage "
                "attention must keep the diagonal"
            )
        present = kept.to(device)[layout.segment]
        rows = None if bool(present.all()) else present.nonzero().squeeze(1)
        layers.append(
            LayerPlan(
                rows=rows,
                segment=layout.segment if rows is None else layout.segment[rows],
                visible=None if bool(visible.all()) else visible,
                codec=chain.kv_cache(layer, geometry),
                rotary=rotary.for_layer(layer),
            )
        )
    return EnginePlan(
        layout=layout,
        segments=segments,
        layers=tuple(layers),
        exact_prefill=any(p.codec is not None and p.codec.exact_prefill for p in layers),
        low_rank=chain.low_rank,
    )

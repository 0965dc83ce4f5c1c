"""A chain folded for one layout: everything the attachment needs, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from tempeval.errors import InvalidSetting
from tempeval.stages import Eviction, PrefixTokens

if TYPE_CHECKING:
    from tempeval.engine.low_rank import LowRank
    from tempeval.methods.base import Chain
    from tempeval.stages import (
        Codec,
        Geometry,
        Layout,
        RotaryPlan,
        ScoredPrune,
        ScoreRequest,
        Segments,
    )


@dataclass(frozen=True)
class LayerPlan:
    """What one decoder layer does.

    Attributes:
        rows: long `[P_l]`, prefix rows present; None for all.
        segment: long `[P_l]`, segment of each row present.
        visible: bool `[K, K]` from stage `attention`; None when nothing is restricted.
        codec: how the layer's prefix keys and values are held; None for as they are.
        rotary: positions in force.
        rules: what decides, in the forward, which of `rows` go on in this layer; in order.
        eviction: what decides which rows of the layer are held; None for all.
    """

    rows: torch.Tensor | None
    segment: torch.Tensor
    visible: torch.Tensor | None
    codec: Codec | None
    rotary: RotaryPlan
    rules: tuple[ScoredPrune, ...] = ()
    eviction: Eviction | None = None


@dataclass(frozen=True)
class EnginePlan:
    """A chain folded for one layout.

    Attributes:
        layout: the prefix.
        tokens: its tokens, as rules see them.
        layers: one plan per decoder layer.
        exact_prefill: whether the prompt reads keys and values as they were before the codecs.
        low_rank: what is added to the text stack's linear maps; None for nothing.
    """

    layout: Layout
    tokens: PrefixTokens
    layers: tuple[LayerPlan, ...]
    exact_prefill: bool = False
    low_rank: LowRank | None = None

    @property
    def segments(self) -> Segments:
        """Names of the segments."""
        return self.tokens.segments

    @cached_property
    def first_unshared(self) -> int:
        """The first layer whose prefix rows depend on the question; the depth where none does."""
        depth = len(self.layers)
        asks = (
            number
            for number, layer in enumerate(self.layers)
            if any(rule.request.of_question for rule in layer.rules)
        )
        return next(asks, depth)

    @property
    def is_shared(self) -> bool:
        """Whether one prefill serves all questions, with what is held of it."""
        held = (layer.eviction for layer in self.layers if layer.eviction is not None)
        ruled = self.first_unshared < len(self.layers)
        return not ruled and not any(eviction.request.of_question for eviction in held)

    @cached_property
    def last_asked(self) -> int:
        """The last layer that the question's rows go through ahead of their own pass.

        Rules want to know of the layer before theirs, or what enters theirs; evictions of their
        own. -1 where nothing is asked of the question.
        """
        last = -1
        for number, layer in enumerate(self.layers):
            if any(rule.request.of_question for rule in layer.rules):
                last = number - 1
            if layer.eviction is not None and layer.eviction.request.of_question:
                last = number
        return last

    def narrowed(self, first: int, kept: torch.Tensor, *, renumber: bool) -> EnginePlan:
        """Return the plan once a rule has decided.

        Args:
            first: layer of the rule.
            kept: long `[n]`, prefix tokens that are present in it, ascending.
            renumber: whether they are numbered anew from this layer on.
        """
        present = torch.zeros(self.layout.length, dtype=torch.bool, device=kept.device)
        present[kept] = True
        same: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        anew: dict[int, RotaryPlan] = {}
        layers = list(self.layers[:first])
        for layer in self.layers[first:]:
            key = -1 if layer.rows is None else id(layer.rows)
            if key not in same:
                rows = kept if layer.rows is None else layer.rows[present[layer.rows]]
                same[key] = rows, self.layout.segment[rows]
            rotary = layer.rotary
            if renumber:
                rotary = anew.setdefault(id(rotary), renumbered(rotary, kept))
            rows, segment = same[key]
            layers.append(replace(layer, rows=rows, segment=segment, rotary=rotary))
        return replace(self, layers=tuple(layers))

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
            if layer.eviction is not None:  # how many rows are left to the codec is not known yet
                return None
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


def renumbered(rotary: RotaryPlan, kept: torch.Tensor) -> RotaryPlan:
    """Number the tokens that are left anew: each channel's positions, ranked without gaps.

    Where positions count tokens that is 0, 1, 2 ...; tokens that shared a position share it still.

    Args:
        rotary: the plan so far.
        kept: long `[n]`, tokens that are left.
    """
    kept = kept.to(rotary.positions.device)
    positions = rotary.positions.clone()
    known: dict[bytes, torch.Tensor] = {}
    for channel in range(positions.shape[1]):
        own = positions[kept, channel]
        key = own.cpu().numpy().tobytes()
        if key not in known:
            known[key] = torch.unique(own, return_inverse=True)[1].to(positions.dtype)
        positions[kept, channel] = known[key]
    after = float(positions[kept].max()) + 1 if len(kept) else 0.0
    return replace(rotary, positions=positions, next_position=after, layers={})


def make_plan(chain: Chain, layout: Layout, geometry: Geometry) -> EnginePlan:
    """Fold stages `positions`, `attention`, `prune` and `kv_cache` of a chain for one layout.

    Raises:
        InvalidSetting: if `prune` brings a token back in a later layer, or asks for what cannot be
            measured, or `attention` hides a segment from itself (every row must see its own
            token).
    """
    tokens = PrefixTokens.of(layout, geometry.num_layers)
    segments = tokens.segments
    rotary = chain.positions(layout.rotary, layout, geometry)
    before = torch.ones_like(tokens.is_visual)
    rows: torch.Tensor | None = None
    segment = layout.segment
    layers: list[LayerPlan] = []
    for layer in range(geometry.num_layers):
        kept, rules = chain.prune(before.clone(), layer, tokens)
        if bool((kept & ~before).any()):
            raise InvalidSetting(
                f"{chain.spec}: a token that left before layer {layer} comes back in it; stage "
                "prune must be monotone over layers"
            )
        if not torch.equal(kept, before):
            rows = kept.nonzero().squeeze(1).to(segment.device)
            segment = layout.segment[rows]
        before = kept
        everything = torch.ones(segments.size, segments.size, dtype=torch.bool)
        visible = chain.attention(everything, layer, segments)
        if not bool(visible.diagonal().all()):
            raise InvalidSetting(
                f"{chain.spec}: in layer {layer} a segment may not attend to itself; stage "
                "attention must keep the diagonal"
            )
        held = chain.kv_cache(layer, geometry)
        eviction = held if isinstance(held, Eviction) else None
        for rule in rules:
            _check_request(chain, layer, rule.request, "prune")
        if eviction is not None:
            _check_request(chain, layer, eviction.request, "kv_cache")
        layers.append(
            LayerPlan(
                rows=rows,
                segment=segment,
                visible=None if bool(visible.all()) else visible,
                codec=held.codec if isinstance(held, Eviction) else held,
                rotary=rotary.for_layer(layer),
                rules=rules,
                eviction=eviction,
            )
        )
    asked = any(e.request.of_question for e in (layer.eviction for layer in layers) if e)
    return EnginePlan(
        layout=layout,
        tokens=tokens,
        layers=tuple(layers),
        exact_prefill=asked or any(p.codec is not None and p.codec.exact_prefill for p in layers),
        low_rank=chain.low_rank,
    )


def _check_request(chain: Chain, layer: int, request: ScoreRequest, stage: str) -> None:
    """Refuse what the engine cannot measure at a layer.

    Raises:
        InvalidSetting: naming the chain, the layer and what to ask for instead.
    """
    problem = ""
    if stage == "kv_cache" and (request.layer != "own" or request.hidden):
        problem = "an eviction is told of its own layer, and no hidden states; ask layer='own'"
    elif request.layer == "previous" and layer == 0 and request.rows is not None:
        problem = "no layer comes before the first; ask layer='own'"
    elif request.queries and (request.rows is None or request.layer != "own"):
        problem = "queries are of named rows and of the own layer; give rows, and layer='own'"
    if problem:
        raise InvalidSetting(f"{chain.spec}: stage {stage} at layer {layer}: {problem}")

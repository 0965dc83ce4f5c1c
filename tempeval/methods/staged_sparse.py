"""Staged sparse attention: less attention to the video where a layer's stage does not need it.

Source: "Causality Matters", arXiv 2508.11576 (AAAI 2026), strategies (1), (2) and (3) of Table 2,
given for the 28 layers of Qwen2.5-VL-7B.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from tempeval.errors import InvalidSetting
from tempeval.methods.base import Method
from tempeval.methods.temporal_exit import (
    LayerConvention,
    TemporalExit,
    counted_from_zero,
    layer_number,
)

if TYPE_CHECKING:
    import torch

    from tempeval.stages import PrefixTokens, RunFacts, Segments

#: What a chain reserves for each strategy.
STRATEGY_MODIFIES = {1: "question_sees", 2: "frames_see", 3: "exit"}
#: The settings that only one strategy reads.
STRATEGY_SETTINGS = {"question_layers": 1, "frame_layer": 2, "exit_layer": 3}


@dataclass(frozen=True)
class StagedSparse(Method):
    """Hide frames from questions (1) or from later frames (2), or remove them (3), layer by layer.

    (1) In `question_layers`, the rows after the last visual token and the generated ones attend,
    among visual tokens, only to the last frame. (2) From `frame_layer` on, a frame's tokens attend
    to no earlier frame; their own frame and the instruction stay visible. (3) From `exit_layer`
    on, no frame token is left (as `temporal_exit`; the row of (3) alone says so).

    Frames are temporal grids, numbered through all visuals and pathways of a prompt. An image is
    one frame per pathway; CLS and newline tokens belong to their frame. The last frame is the one
    with the highest number. Where frames have left, (1) and (2) change nothing.

    Differs from the paper: the paper's "layers 10-20" does not say whether layers count from 0 or
    1 (see `layer_convention`). For (2), a variant in which a frame token sees no token of its own
    frame is not offered.

    Attributes:
        strategies: which of 1, 2 and 3. The paper's accuracies hold under (2) and under (3), and
            fall under (1); (2) is the default, because (3) alone is `temporal_exit`.
        question_layers: first layer of (1) and the one after its last: layer numbers, or fractions
            of the depth in (0, 1).
        frame_layer: first layer of (2).
        exit_layer: first layer of (3).
        layer_convention: `zero` counts layers from 0 and leaves out the end of a range; `one`
            counts from 1 and includes it, so ranges begin one layer earlier.
    """

    name: ClassVar[str] = "staged_sparse"
    #: Of all strategies; an instance modifies those of its own, and stands once in a chain.
    modifies: ClassVar[frozenset[str]] = frozenset({"staged_sparse", *STRATEGY_MODIFIES.values()})

    strategies: tuple[int, ...] = (2,)
    question_layers: tuple[int | float, ...] = (10 / 28, 20 / 28)
    frame_layer: int | float = 20 / 28
    exit_layer: int | float = 20 / 28
    layer_convention: LayerConvention = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = tuple(sorted(self.strategies))
        known = set(STRATEGY_MODIFIES)
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= known:
            raise InvalidSetting(
                f"staged_sparse.strategies={'/'.join(map(str, self.strategies))} is not accepted; "
                "give one or more of 1, 2 and 3, each once, as strategies=1/3"
            )
        if len(self.question_layers) != 2:
            raise InvalidSetting(
                f"staged_sparse.question_layers={self.question_layers} is not accepted; give the "
                "first layer and the one after the last, as question_layers=10/20"
            )
        for f in fields(self):
            strategy = STRATEGY_SETTINGS.get(f.name)
            if strategy not in (None, *chosen) and getattr(self, f.name) != f.default:
                raise InvalidSetting(
                    f"staged_sparse.{f.name}={getattr(self, f.name)} has no effect without "
                    f"strategy {strategy}; add it to strategies, or leave the setting out"
                )
        # One spelling and fingerprint per set of strategies, which alone are modified.
        object.__setattr__(self, "strategies", chosen)
        modifies = {"staged_sparse", *(STRATEGY_MODIFIES[s] for s in chosen)}
        object.__setattr__(self, "modifies", frozenset(modifies))

    def layers(self, strategy: int, num_layers: int) -> range:
        """Resolve the 0-based layers of a strategy for a model's depth.

        Raises:
            InvalidSetting: if the range is empty or outside the model, or if strategy 3 leaves no
                layer with frames.
        """
        last: int | float = num_layers
        if strategy == 1:
            name, (first, last) = "question_layers", self.question_layers
        elif strategy == 2:
            name, first = "frame_layer", self.frame_layer
        else:
            name, first = "exit_layer", self.exit_layer
        label = f"staged_sparse.{name}"
        start = counted_from_zero(layer_number(label, first, num_layers), self.layer_convention)
        stop = layer_number(label, last, num_layers)
        least = 1 if strategy == 3 else 0
        if not least <= start < stop <= num_layers:
            raise InvalidSetting(
                f"{label}={getattr(self, name)} resolves to layers [{start}, {stop}) of "
                f"{num_layers} (0-based); accepted are ranges that are not empty and lie in "
                f"[{least}, {num_layers})" + ("; some layer must see the frames" if least else "")
            )
        return range(start, stop)

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Return the layers (0-based, half-open) of each strategy, and which change nothing.

        A strategy changes nothing where frames have left before, by (3) or by another method of
        the chain; (2) neither in the last layer, because nothing reads what frames compute there.
        """
        depth = facts.geometry.num_layers
        ranges = {s: self.layers(s, depth) for s in self.strategies}
        return {
            **{f"strategy_{s}_layers": [r.start, r.stop] for s, r in ranges.items()},
            "strategies_without_effect": self._idle(facts),
        }

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Say so when no strategy changes anything, or when another method does the same."""
        if self.strategies == (3,):
            same = TemporalExit(self.exit_layer, self.layer_convention)
            return (f"the same as {same.spec()}",)
        if len(self._idle(facts)) < len(self.strategies):
            return ()
        left = self._layers_with_frames(facts)
        if left < facts.geometry.num_layers:
            return (f"inert: no frame is left from layer {left} on",)
        return ("inert: nothing reads what frames see in the last layer",)

    def _idle(self, facts: RunFacts) -> list[int]:
        """Return the strategies that change nothing."""
        depth = facts.geometry.num_layers
        left = self._layers_with_frames(facts)
        felt = {1: left, 2: min(left, depth - 1), 3: depth}
        return [s for s in self.strategies if self.layers(s, depth).start >= felt[s]]

    def _layers_with_frames(self, facts: RunFacts) -> int:
        depth = facts.geometry.num_layers
        own = self.layers(3, depth).start if 3 in self.strategies else depth
        return own if facts.layers_with_frames is None else min(own, facts.layers_with_frames)

    def attention(self, visible: torch.Tensor, layer: int, segments: Segments) -> torch.Tensor:
        """Hide all frames but the last from the question (1), earlier frames from frames (2)."""
        frames, visible = segments.frames, visible.clone()
        if self._acts(1, layer, segments):
            for row in (segments.question, segments.last):
                visible[row, list(frames)[:-1]] = False
        if self._acts(2, layer, segments):
            for row in frames:
                visible[row, frames.start : row] = False
        return visible

    def prune(self, kept: torch.Tensor, layer: int, prefix: PrefixTokens) -> torch.Tensor:
        """End all frames at the exit layer (3)."""
        return kept & ~prefix.of_frames if self._acts(3, layer, prefix.segments) else kept

    def _acts(self, strategy: int, layer: int, segments: Segments) -> bool:
        return strategy in self.strategies and layer in self.layers(strategy, segments.num_layers)

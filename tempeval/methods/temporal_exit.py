"""Temporal exit: frame tokens leave the model after part of its depth.

Source: "Causality Matters", arXiv 2508.11576 (AAAI 2026), strategy (3) of Table 2: layers 20 to 28
of Qwen2.5-VL-7B run without any frame token.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tempeval.errors import InvalidSetting
from tempeval.methods.base import Method

if TYPE_CHECKING:
    import torch

    from tempeval.stages import PrefixTokens, RunFacts

#: How a paper's layers are counted: see `counted_from_zero`.
LayerConvention = Literal["zero", "one"]


def scaled_layer(fraction: float, num_layers: int) -> int:
    """Return the 0-based layer at a fraction of the depth: `floor(L * fraction + 0.5)`."""
    return floor(num_layers * fraction + 0.5)


def layer_number(label: str, layer: int | float, num_layers: int) -> int:
    """Resolve a layer number (returned as it is) or a fraction of the depth.

    Args:
        label: name of the setting, for the error.
        layer: whole number, or a fraction in (0, 1).
        num_layers: depth of the text stack.

    Raises:
        InvalidSetting: for a fraction outside (0, 1).
    """
    if not isinstance(layer, float):
        return layer
    if not 0 < layer < 1:
        raise InvalidSetting(
            f"{label}={layer} is a fraction outside (0, 1); give a fraction of the depth, or a "
            "whole layer index"
        )
    return scaled_layer(layer, num_layers)


def counted_from_zero(first: int, convention: LayerConvention) -> int:
    """Return the 0-based layer at which a range begins.

    The range that is called 20 to 28 begins at index 20 where layers are counted from 0 (its end
    left out), and at index 19 where they are counted from 1 (its end included).
    """
    return first - (convention == "one")


@dataclass(frozen=True)
class TemporalExit(Method):
    """Remove every frame token from hidden states and KV cache from `layer` on.

    Removal is real and starts in prefill: rows are sliced out of the hidden states, and their keys
    and values are never computed in the last layers. The paper's accuracies change with a single
    generated token, so dropping the cache after a dense prefill cannot be what was measured.

    Attributes:
        layer: first layer without frame tokens: a layer number, or a fraction of the depth
            in (0, 1). The paper's 20 of 28 layers is the default.
        layer_convention: whether the number counts layers from 0 (`zero`) or from 1 (`one`); the
            paper does not say. `one` begins one layer earlier.
    """

    name: ClassVar[str] = "temporal_exit"
    modifies: ClassVar[frozenset[str]] = frozenset({"exit"})

    layer: int | float = 20 / 28
    layer_convention: LayerConvention = "zero"

    def first_layer(self, num_layers: int) -> int:
        """Resolve `layer` for a model's depth.

        Raises:
            InvalidSetting: if no layer would run without frames, or none with them.
        """
        named = layer_number("temporal_exit.layer", self.layer, num_layers)
        first = counted_from_zero(named, self.layer_convention)
        if not 1 <= first < num_layers:
            raise InvalidSetting(
                f"temporal_exit.layer={self.layer} resolves to layer {first} of {num_layers}; "
                f"accepted are 1 to {num_layers - 1} (0-based), so that the range "
                f"{first}..{num_layers - 1} is not empty and some layer sees the frames"
            )
        return first

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Return the resolved exit layer."""
        return {"first_layer": self.first_layer(facts.geometry.num_layers)}

    def prune(self, kept: torch.Tensor, layer: int, prefix: PrefixTokens) -> torch.Tensor:
        """End all frame segments at the exit layer."""
        gone = layer >= self.first_layer(prefix.segments.num_layers)
        return kept & ~prefix.of_frames if gone else kept

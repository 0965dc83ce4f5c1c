"""Analytic cost of the Qwen-VL vision towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class VisionCost:
    """Sizes of a Qwen-VL vision tower, for counting floating-point operations.

    A multiplication with an addition counts as two operations. Norms, activations, rotary and
    softmax are left out (below 1 % at real sizes). With n patches, width C, MLP width I, m x m
    patches per merged token, N = n / m^2 merged tokens of width D and `s` the attention segments:

        patch embedding  2 n C (3 * temporal_patch * patch^2)
        each layer       2 n C (4 C) + 2 n C (mlp_matrices * I) + 4 C sum(len(s)^2)
        merger           2 N (m^2 C)^2 + 2 N (m^2 C) D

    Segments are whole temporal grids (transformers attends within a grid), or, in the windowed
    layers of Qwen2.5-VL, windows of at most `window_size` x `window_size` pixels in a grid.

    Attributes:
        depth: layers.
        full_layers: layers that attend over the whole grid.
        width: C.
        mlp_width: I.
        mlp_matrices: 3 for a gated MLP, 2 for a plain one.
        out_width: D.
        patch: pixels per patch side.
        temporal_patch: frames per temporal grid.
        merge: m.
        window: merged tokens per window side; 0 where every layer is full.
    """

    depth: int
    full_layers: int
    width: int
    mlp_width: int
    mlp_matrices: int
    out_width: int
    patch: int
    temporal_patch: int
    merge: int
    window: int

    @classmethod
    def from_config(cls, config: Any, model_type: str) -> VisionCost:
        """Read the sizes from a `vision_config` of `qwen2_vl` or `qwen2_5_vl`."""
        common = {
            "depth": config.depth,
            "patch": config.patch_size,
            "temporal_patch": config.temporal_patch_size,
            "merge": config.spatial_merge_size,
        }
        if model_type == "qwen2_vl":
            return cls(
                full_layers=config.depth,
                width=config.embed_dim,
                mlp_width=int(config.embed_dim * config.mlp_ratio),
                mlp_matrices=2,
                out_width=config.hidden_size,
                window=0,
                **common,
            )
        full = {layer for layer in config.fullatt_block_indexes if 0 <= layer < config.depth}
        return cls(
            full_layers=len(full),
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
            mlp_matrices=3,
            out_width=config.out_hidden_size,
            window=config.window_size // config.spatial_merge_size // config.patch_size,
            **common,
        )

    def flops(self, grid: tuple[int, int, int]) -> float:
        """Count operations for one visual.

        Args:
            grid: (T, h, w) of merged tokens as the tower made them, before any method pools them.
        """
        t, h, w = grid
        unit = self.merge**2
        merged = t * h * w
        patches = merged * unit
        embed = 2 * patches * self.width * 3 * self.temporal_patch * self.patch**2
        linear = 2 * patches * self.width * (4 * self.width + self.mlp_matrices * self.mlp_width)
        full = 4 * self.width * t * (h * w * unit) ** 2
        rows, columns = self._spans(h), self._spans(w)
        areas = (a * b * unit for a in rows for b in columns)
        windowed = 4 * self.width * t * sum(area**2 for area in areas)
        merger = 2 * merged * unit * self.width * (unit * self.width + self.out_width)
        attention = self.full_layers * full + (self.depth - self.full_layers) * windowed
        return float(embed + self.depth * linear + attention + merger)

    def _spans(self, size: int) -> Sequence[int]:
        """Cut `size` merged tokens into windows; the last one may be shorter."""
        if not self.window:
            return [size]
        return [min(self.window, size - start) for start in range(0, size, self.window)]

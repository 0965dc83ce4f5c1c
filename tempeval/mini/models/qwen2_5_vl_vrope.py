"""A tiny Qwen2.5-VL trained with VRoPE positions (arXiv 2502.11664) in place of M-RoPE."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from tempeval.methods.vrope import vrope_positions
from tempeval.mini.models.qwen2_5_vl import MiniQwen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.mini.models.base import TokenGrid

HALF_HEAD_DIM = 16


class MiniQwenVRoPE(MiniQwen):
    """The same model, recipe and seeds; only the positions differ."""

    name: ClassVar[str] = "qwen2_5_vl_vrope"
    title: ClassVar[str] = "Qwen2.5-VL with VRoPE"
    position_note: ClassVar[str] = (
        "Positions are VRoPE's (`method=vrope`), which do not follow the time between frames. Run "
        "it with `method=vrope`; without it the model meets positions that it was not trained with."
    )
    trained_with: ClassVar[str] = "vrope"

    def positions(
        self, before: int, grid: TokenGrid, seconds_per_frame: float
    ) -> tuple[torch.Tensor, int]:
        """Return VRoPE positions, `[16, n]`: one row per rotary channel."""
        segments = [("text", before), ("video", grid.grids, grid.rows, grid.columns)]
        rows, start = vrope_positions(segments, HALF_HEAD_DIM)
        return rows.T, int(start)

    @contextlib.contextmanager
    def placed(self, model: Any) -> Iterator[None]:
        """Replace the rotary module by one that takes a position per channel."""
        text = model.model.language_model
        before = text.rotary_emb
        text.rotary_emb = _ChannelRotary(before.inv_freq)
        try:
            yield
        finally:
            text.rotary_emb = before


class _ChannelRotary(nn.Module):
    def __init__(self, inv_freq: torch.Tensor) -> None:
        super().__init__()
        self.inv_freq = inv_freq

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # [16, B, S] -> [B, S, 16] -> [B, S, 32]
        angles = position_ids.permute(1, 2, 0).float() * self.inv_freq
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

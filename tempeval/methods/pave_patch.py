"""PAVE's patch: visual tokens ask a side channel, and add what they hear.

Source: PAVE, arXiv 2503.19794; code github.com/dragonlzm/PAVE, `PAVEModuleV5` in
`libs/model/multimodal_encoder/info_aggregator.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from tempeval.errors import InvalidSetting
from tempeval.methods.pave_state import PatchSizes, checked_state, official_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


#: Channel pairs of a head that turn with time, row and column, where the patch has positions.
ROPE_SECTIONS = (16, 24, 24)
ROPE_HEAD = 2 * sum(ROPE_SECTIONS)
_ROPE_BASE = 10_000.0


class PavePatch(nn.Module):
    """Cross-attention from visual tokens to a side channel.

    Each frame attends to its own steps of the side channel alone. There is no mask among them, no
    norm before attention, and no projection after it. Of the released checkpoints only v5_1_2 has
    positions in it; weights do not tell.

    Args:
        sizes: widths and depth.
        num_heads: attention heads; divides the hidden width.
        kv_share: take values from `k_linear`, as the released weights were trained; `v_linear` is
            then held but never used. False uses `v_linear`.
        use_3d_rope: turn queries and keys by time, row and column (see `_Turns`).

    Raises:
        InvalidSetting: if the heads do not divide the hidden width, or have another width than
            rotary positions need.
    """

    def __init__(
        self,
        sizes: PatchSizes,
        *,
        num_heads: int = 4,
        kv_share: bool = True,
        use_3d_rope: bool = False,
    ) -> None:
        super().__init__()
        if num_heads < 1 or sizes.hidden % num_heads:
            raise InvalidSetting(
                f"num_heads={num_heads} does not divide the patch's hidden width {sizes.hidden}"
            )
        check_rope(sizes.hidden, num_heads, use_3d_rope=use_3d_rope)
        self.sizes, self.num_heads, self.kv_share = sizes, num_heads, kv_share
        self.use_3d_rope = use_3d_rope
        hidden, wide = sizes.hidden, sizes.output_hidden
        self.input_mapping = nn.Linear(sizes.side, hidden)
        self.query_input_mapping = nn.Linear(sizes.query, hidden)
        self.cross_attn_layers = nn.ModuleList(
            _Layer(hidden, sizes.feed_forward, num_heads, kv_share) for _ in range(sizes.layers)
        )
        self.output_mapping = nn.Sequential(
            nn.Linear(hidden, wide), nn.GELU(), nn.Linear(wide, sizes.output)
        )
        self.output_norm = nn.LayerNorm(sizes.output)
        self._start()

    def _start(self) -> None:
        """Zero every bias of a linear map, and the last norm: the patch adds exactly nothing."""
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.output_norm.weight)
        nn.init.zeros_(self.output_norm.bias)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, torch.Tensor],
        *,
        num_heads: int = 4,
        kv_share: bool = True,
        use_3d_rope: bool = False,
    ) -> PavePatch:
        """Build from official weights; all sizes but the number of heads are read from them.

        The weights are copied: the caller's tensors stay its own.

        Args:
            state: tensors under the official names, with or without a prefix such as
                `base_model.model.model.temporal_aggregator.`.
            num_heads: attention heads (4 in every released checkpoint).
            kv_share: see the class.
            use_3d_rope: see the class; no weight tells it.

        Raises:
            InvalidSetting: naming a missing or unexpected key, one of another shape, or a value
                that is no dense tensor of finite floats.
        """
        named, sizes = checked_state(state)
        with torch.device("meta"):  # no numbers are drawn that are replaced at once
            patch = cls(sizes, num_heads=num_heads, kv_share=kv_share, use_3d_rope=use_3d_rope)
        # `assign` keeps each weight's dtype, and would share its memory with the caller.
        copies = {key: value.detach().clone() for key, value in named.items()}
        patch.load_state_dict(copies, assign=True)
        return patch.eval()

    def official_state(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Return the weights under their official names, each after `prefix`."""
        return official_state(self.state_dict(), prefix)

    def forward(
        self,
        side_channel: torch.Tensor,
        query_tokens: torch.Tensor,
        neighbors: Sequence[range] | None = None,
        *,
        grid: tuple[int, int] | None = None,
        times: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return what is added to the projected visual tokens.

        Args:
            side_channel: `[T_k, h, w, C]`.
            query_tokens: `[T_q, S_q, C_q]`, features of each frame before the projector.
            neighbors: the steps that each frame attends to; they may overlap. A frame without any
                gets zeros. None is the official equal partition: contiguous, the first
                `T_k mod T_q` frames with one step more; a side channel shorter than the frames
                is first stretched to them, linearly.
            grid: rows and columns of a frame's tokens, which only rotary positions read; None for
                a square, as the official code has it.
            times: long `[T_q]` and `[T_k]`, temporal positions of frames and steps where they are
                of several videos; None for those of one (see `rope_times`).

        Returns:
            `[T_q, S_q, D]`.

        Raises:
            InvalidSetting: for a shape that does not fit, an empty side channel, numbers that are
                not finite, neighbours that do not exist, or a grid that does not hold the tokens.
        """
        self._check(side_channel, query_tokens)
        frames = query_tokens.shape[0]
        keys = self.input_mapping(side_channel)  # [T_k, h, w, E]
        if neighbors is None:
            keys = stretched(keys, frames)
            neighbors = equal_partition(keys.shape[0], frames)
        index, present = _padded(neighbors, frames, keys.shape[0], keys.device)
        turns = None
        if self.use_3d_rope:
            queries = grid or _square(query_tokens.shape[1])
            if queries[0] * queries[1] != query_tokens.shape[1]:
                raise InvalidSetting(
                    f"a grid of {queries[0]} x {queries[1]} does not hold {query_tokens.shape[1]} "
                    "tokens"
                )
            frame_times, step_times = times or rope_times(frames, keys.shape[0])
            turns = _Turns.of(frame_times, step_times, queries, tuple(keys.shape[1:3]), keys)
        keys = keys.flatten(1, 2)  # [T, S, E]
        hidden = self.query_input_mapping(query_tokens)
        for layer in self.cross_attn_layers:
            hidden = layer(hidden, keys, index, present, turns)
        patch: torch.Tensor = self.output_norm(self.output_mapping(hidden))
        heard = present.any(1)
        return patch if bool(heard.all()) else patch * heard[:, None, None]

    def flops(
        self,
        side_channel: Sequence[int],
        frames: int,
        tokens: int,
        neighbors: Sequence[range] | None = None,
    ) -> float:
        """Count the operations of one video, two per multiplication.

        Args:
            side_channel: its shape (T_k, h, w, C).
            frames: frames T_q.
            tokens: tokens per frame S_q.
            neighbors: as in `forward`.
        """
        sizes = self.sizes
        steps, cells = side_channel[0], side_channel[1] * side_channel[2]
        if neighbors is None:
            steps = max(steps, frames)
        queries, keys = frames * tokens, steps * cells
        met = steps if neighbors is None else sum(len(own) for own in neighbors)
        attended = tokens * met * cells
        mapped = queries * sizes.query + side_channel[0] * cells * sizes.side
        kept = 1 if self.kv_share else 2
        per_layer = sizes.hidden * (queries + kept * keys) + 2 * attended
        per_layer += 2 * queries * sizes.feed_forward
        out = queries * sizes.output_hidden * (1 + sizes.output / sizes.hidden)
        return 2.0 * sizes.hidden * (mapped + sizes.layers * per_layer + out)

    def _check(self, side_channel: torch.Tensor, query_tokens: torch.Tensor) -> None:
        sizes = self.sizes
        for name, given, ndim, width in (
            ("side_channel [T_k, h, w, C]", side_channel, 4, sizes.side),
            ("query_tokens [T_q, S_q, C_q]", query_tokens, 3, sizes.query),
        ):
            if given.ndim != ndim or given.shape[-1] != width:
                raise InvalidSetting(
                    f"{name} has shape {tuple(given.shape)}; this patch takes {ndim} dimensions, "
                    f"the last of {width}"
                )
            if not given.numel():
                raise InvalidSetting(f"{name} is empty: shape {tuple(given.shape)}")
            if not bool(torch.isfinite(given).all()):
                raise InvalidSetting(f"{name} has numbers that are not finite")


class _Layer(nn.Module):
    """One block: attention with its residual, then the feed-forward with its own."""

    def __init__(self, width: int, feed_forward: int, heads: int, kv_share: bool) -> None:
        super().__init__()
        self.attn = _Attention(width, heads, kv_share)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, feed_forward, bias=False),
            nn.GELU(),
            nn.Linear(feed_forward, width, bias=False),
        )

    def forward(
        self,
        hidden: torch.Tensor,
        keys: torch.Tensor,
        index: torch.Tensor,
        present: torch.Tensor,
        turns: _Turns | None,
    ) -> torch.Tensor:
        hidden = self.attn(hidden, keys, index, present, turns) + hidden
        out: torch.Tensor = self.ffn(hidden) + hidden
        return out


class _Attention(nn.Module):
    """Attention of frames' tokens `[T_q, S_q, E]` to their own steps of `[T, S, E]`."""

    def __init__(self, width: int, heads: int, kv_share: bool) -> None:
        super().__init__()
        self.heads, self.kv_share = heads, kv_share
        self.q_linear = nn.Linear(width, width)
        self.k_linear = nn.Linear(width, width)
        self.v_linear = nn.Linear(width, width)

    def forward(
        self,
        hidden: torch.Tensor,
        keys: torch.Tensor,
        index: torch.Tensor,
        present: torch.Tensor,
        turns: _Turns | None,
    ) -> torch.Tensor:
        query = self._split(self.q_linear(hidden))
        mapped = self.k_linear(keys)
        key = self._split(mapped[index].flatten(1, 2))
        value = key if self.kv_share else self._split(self.v_linear(keys)[index].flatten(1, 2))
        if turns is not None:  # values are never turned, also where they are the keys
            query = turned(query, turns.queries)
            key = turned(key, turns.keys[:, index].flatten(2, 3))
        mask = None
        if not bool(present.all()):
            # A frame without steps attends to step 0 instead of to nothing, which is no number;
            # its rows are dropped at the end.
            open_ = present | ~present.any(1, keepdim=True)
            mask = open_.repeat_interleave(keys.shape[1], dim=1)[:, None, None]
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, N, E]` to `[B, heads, N, E / heads]`."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class _Turns:
    """Cosines and sines of the angles by which queries and keys turn.

    Of a head's 64 channel pairs the first 16 turn with time, 24 with the row and 24 with the
    column, by position times 10000^(-pair / 64) radians. Positions are those of the finer of both
    grids; the coarser one has the cells that its own cells' middles lie in.

    Source: github.com/dragonlzm/PAVE @ ef6a93f, `VideoCrossAttentionWith3DRope` in
    `libs/model/multimodal_encoder/blocks.py`. It knows squares alone; other grids go by the same
    rule, axis by axis.

    Attributes:
        queries: float `[2, T_q, S_q, 64]`, cosine and sine.
        keys: float `[2, T_k, S_k, 64]`.
    """

    queries: torch.Tensor
    keys: torch.Tensor

    @classmethod
    def of(
        cls,
        frame_times: torch.Tensor,
        step_times: torch.Tensor,
        query_grid: tuple[int, ...],
        key_grid: tuple[int, ...],
        like: torch.Tensor,
    ) -> _Turns:
        """Return the turns of frames and steps.

        Args:
            frame_times: long `[T_q]`.
            step_times: long `[T_k]`.
            query_grid: rows and columns of a frame's tokens.
            key_grid: rows and columns of a step's.
            like: gives device and dtype.
        """
        finest = [max(pair) for pair in zip(query_grid, key_grid, strict=True)]
        return cls(
            _turn(frame_times, query_grid, finest, like), _turn(step_times, key_grid, finest, like)
        )


def check_rope(hidden: int, num_heads: int, *, use_3d_rope: bool) -> None:
    """Refuse rotary positions in heads of another width than theirs.

    Raises:
        InvalidSetting: naming the width.
    """
    if use_3d_rope and hidden != num_heads * ROPE_HEAD:
        raise InvalidSetting(
            f"use_3d_rope=true needs heads of {ROPE_HEAD} channels; {num_heads} heads of a hidden "
            f"width of {hidden} have {hidden // num_heads}"
        )


def rope_times(frames: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return temporal positions of a video's frames and steps, long `[frames]` and `[steps]`.

    Both are spread over the longer of the two, ends on ends, rounded down: the official rule for
    frames. Steps are never fewer than frames in the official code, which stretches them.
    """
    longest = max(frames, steps)
    spread = (np.linspace(0, longest - 1, count, dtype=int) for count in (frames, steps))
    first, second = (torch.from_numpy(positions.astype(np.int64)) for positions in spread)
    return first, second


def turned(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn channel pairs (i, i + half) of `[B, heads, N, E]` by angles `[2, B, N, E / 2]`."""
    cos, sin = turn.unsqueeze(2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _turn(
    times: torch.Tensor, grid: tuple[int, ...], finest: Sequence[int], like: torch.Tensor
) -> torch.Tensor:
    rows, columns = (_cells(*pair) for pair in zip(grid, finest, strict=True))
    cells = torch.meshgrid(times.cpu(), rows, columns, indexing="ij")
    # [T, h, w] by axis -> [T, S, 64] by channel pair
    positions = torch.cat(
        [
            axis.flatten(1).unsqueeze(-1).expand(-1, -1, pairs)
            for axis, pairs in zip(cells, ROPE_SECTIONS, strict=True)
        ],
        dim=-1,
    )
    pairs = torch.arange(0, ROPE_HEAD, 2, dtype=torch.float32)
    angles = positions.float() / _ROPE_BASE ** (pairs / ROPE_HEAD)
    # The official evaluation holds them in half precision, also where weights are widened again.
    return torch.stack([angles.cos(), angles.sin()]).half().to(like)


def _cells(count: int, finest: int) -> torch.Tensor:
    """Return in which of `finest` cells the middles of `count` equal ones lie, long `[count]`."""
    halves = np.linspace(0, finest, 2 * count + 1, dtype=int)
    return torch.from_numpy(halves[1::2].astype(np.int64))


def _square(tokens: int) -> tuple[int, int]:
    side = isqrt(tokens)
    if side * side != tokens:
        raise InvalidSetting(
            f"{tokens} tokens of a frame are no square, so their rows and columns must be given"
        )
    return side, side


def stretched(keys: torch.Tensor, frames: int) -> torch.Tensor:
    """Stretch `[T, h, w, E]` to at least `frames` steps, linearly in time, ends on ends."""
    steps, rows, columns, _ = keys.shape
    if steps >= frames:
        return keys
    channels_first = keys.permute(3, 0, 1, 2).unsqueeze(0)
    longer = interpolate(
        channels_first, size=(frames, rows, columns), mode="trilinear", align_corners=True
    )
    return longer[0].permute(1, 2, 3, 0)


def equal_partition(steps: int, frames: int) -> list[range]:
    """Return the official partition: contiguous, the first `steps mod frames` one step longer."""
    least, more = divmod(steps, frames)
    ends = [least * n + min(n, more) for n in range(frames + 1)]
    return [range(start, stop) for start, stop in pairwise(ends)]


def _padded(
    neighbors: Sequence[range], frames: int, steps: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return steps `[T_q, n]` padded with 0, and which of them are there."""
    if len(neighbors) != frames:
        raise InvalidSetting(f"neighbors of {len(neighbors)} frames are given for {frames}")
    for number, own in enumerate(neighbors):
        if len(own) and not (own.step == 1 and own[0] >= 0 and own[-1] < steps):
            raise InvalidSetting(
                f"frame {number} has neighbors {own}; the side channel has steps 0 to {steps - 1}"
            )
    longest = max(1, *(len(own) for own in neighbors)) if neighbors else 1
    places = torch.arange(longest, device=device)
    starts = torch.tensor([own.start if len(own) else 0 for own in neighbors], device=device)
    lengths = torch.tensor([len(own) for own in neighbors], device=device)
    present = places < lengths[:, None]
    return torch.where(present, starts[:, None] + places, 0), present

"""PAVE's patch: visual tokens ask a side channel, and add what they hear.

Source: PAVE, arXiv 2503.19794; code github.com/dragonlzm/PAVE, `PAVEModuleV5` in
`libs/model/multimodal_encoder/info_aggregator.py` (facts in papers.md A2; written from them).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from tempeval.errors import InvalidSetting
from tempeval.methods.pave_state import PatchSizes, checked_state, official_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PavePatch(nn.Module):
    """Cross-attention from visual tokens to a side channel, without positions.

    Each frame attends to its own steps of the side channel alone. There is no mask among them, no
    norm before attention, and no projection after it.

    Args:
        sizes: widths and depth.
        num_heads: attention heads; divides the hidden width.
        kv_share: take values from `k_linear`, as the released weights were trained; `v_linear` is
            then held but never used. False uses `v_linear`.

    Raises:
        InvalidSetting: if the heads do not divide the hidden width.
    """

    def __init__(self, sizes: PatchSizes, *, num_heads: int = 4, kv_share: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or sizes.hidden % num_heads:
            raise InvalidSetting(
                f"num_heads={num_heads} does not divide the patch's hidden width {sizes.hidden}"
            )
        self.sizes, self.num_heads, self.kv_share = sizes, num_heads, kv_share
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
        cls, state: Mapping[str, torch.Tensor], *, num_heads: int = 4, kv_share: bool = True
    ) -> PavePatch:
        """Build from official weights; all sizes but the number of heads are read from them.

        The weights are copied: the caller's tensors stay its own.

        Args:
            state: tensors under the official names, with or without a prefix such as
                `base_model.model.model.temporal_aggregator.`.
            num_heads: attention heads (4 in every released checkpoint).
            kv_share: see the class.

        Raises:
            InvalidSetting: naming a missing or unexpected key, one of another shape, or a value
                that is no dense tensor of finite floats.
        """
        named, sizes = checked_state(state)
        with torch.device("meta"):  # no numbers are drawn that are replaced at once
            patch = cls(sizes, num_heads=num_heads, kv_share=kv_share)
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
    ) -> torch.Tensor:
        """Return what is added to the projected visual tokens.

        Args:
            side_channel: `[T_k, h, w, C]`.
            query_tokens: `[T_q, S_q, C_q]`, features of each frame before the projector.
            neighbors: the steps that each frame attends to; they may overlap. A frame without any
                gets zeros. None is the official equal partition: contiguous, the first
                `T_k mod T_q` frames with one step more; a side channel shorter than the frames
                is first stretched to them, linearly.

        Returns:
            `[T_q, S_q, D]`.

        Raises:
            InvalidSetting: for a shape that does not fit, an empty side channel, numbers that are
                not finite, or neighbours that do not exist.
        """
        self._check(side_channel, query_tokens)
        frames = query_tokens.shape[0]
        keys = self.input_mapping(side_channel)  # [T_k, h, w, E]
        if neighbors is None:
            keys = stretched(keys, frames)
            neighbors = equal_partition(keys.shape[0], frames)
        index, present = _padded(neighbors, frames, keys.shape[0], keys.device)
        keys = keys.flatten(1, 2)  # [T, S, E]
        hidden = self.query_input_mapping(query_tokens)
        for layer in self.cross_attn_layers:
            hidden = layer(hidden, keys, index, present)
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
        self, hidden: torch.Tensor, keys: torch.Tensor, index: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        hidden = self.attn(hidden, keys, index, present) + hidden
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
        self, hidden: torch.Tensor, keys: torch.Tensor, index: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        query = self._split(self.q_linear(hidden))
        mapped = self.k_linear(keys)
        key = self._split(mapped[index].flatten(1, 2))
        value = key if self.kv_share else self._split(self.v_linear(keys)[index].flatten(1, 2))
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

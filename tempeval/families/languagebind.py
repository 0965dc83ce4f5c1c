"""The LanguageBind video tower of Video-LLaVA: CLIP that attends over time within blocks of frames.

Written from a description of the tower's arithmetic, not from its code. The Hugging Face port of
Video-LLaVA has neither the temporal attention nor the temporal embeddings of this tower.

Source: PKU-YuanGroup/Video-LLaVA @ 984e65b, multimodal_encoder/languagebind/video.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import nn

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.languagebind_config import TowerConfig, prefix_of, unknown_keys
from tempeval.video.sampling import nearest_multiple

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Shown per list of wrong keys.
_NAMED = 8


class _Attention(nn.Module):
    """Bidirectional attention with biases; scores are scaled by `d ** -0.5`."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Attend within each row of `[rows, n, C]`."""
        shape = (*states.shape[:2], self.heads, -1)
        query, key, value = (
            projection(states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(query, key, value)
        attended: torch.Tensor = self.out_proj(out.transpose(1, 2).reshape(states.shape))
        return attended


class _MLP(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = config.activation

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(self.activation(self.fc1(states)))
        return out


class _Layer(nn.Module):
    """Time, then space, then MLP; the temporal embedding is added to the residual stream."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

        self.self_attn = _Attention(config)
        self.layer_norm1 = norm()
        self.mlp = _MLP(config)
        self.layer_norm2 = norm()
        self.temporal_embedding = nn.Parameter(
            torch.empty(1, config.num_frames, config.hidden_size)
        )
        self.temporal_attn = _Attention(config)
        self.temporal_layer_norm1 = norm()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map `[blocks * t, N, C]` to the same shape; t is the length of the embedding."""
        tokens, width = states.shape[1:]
        block = self.temporal_embedding.shape[1]
        # [b * t, n, C] -> [b * n, t, C]
        times = states.view(-1, block, tokens, width).transpose(1, 2).reshape(-1, block, width)
        times = times + self.temporal_embedding
        times = times + self.temporal_attn(self.temporal_layer_norm1(times))
        # [b * n, t, C] -> [b * t, n, C]
        states = times.view(-1, tokens, block, width).transpose(1, 2).reshape(states.shape)
        states = states + self.self_attn(self.layer_norm1(states))
        out: torch.Tensor = states + self.mlp(self.layer_norm2(states))
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(
            config.num_channels, width, kernel_size=patch, stride=patch, bias=False
        )
        self.position_embedding = nn.Embedding(config.num_tokens, width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map `[n, 3, H, W]` to `[n, N, C]`, CLS first."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        leads = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat([leads, patches], dim=1) + self.position_embedding.weight


class _Encoder(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class LanguageBindVideoTower(nn.Module):
    """The tower, with the parameter names of its checkpoint.

    Frames are cut into consecutive blocks of `config.num_frames`; attention over time stays within
    a block. The hidden state of `config.select_layer` is returned with its CLS tokens; layers
    after it are loaded but not run, and neither is `post_layernorm`.

    Args:
        config: sizes.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = _Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @torch.no_grad()
    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Encode videos.

        Args:
            video: `[B, 3, T, H, W]`, normalised; T a multiple of `config.num_frames`.

        Returns:
            `[B, T, N, C]` in the video's dtype, N = 1 CLS + patches.

        Raises:
            InvalidSetting: if the video is of another shape.
        """
        self._check(video)
        batch, channels, frames, height, width = video.shape
        pixels = video.transpose(1, 2).reshape(batch * frames, channels, height, width)
        weight = self.embeddings.patch_embedding.weight
        states = self.pre_layrnorm(self.embeddings(pixels.to(weight.dtype)))
        for layer in self.encoder.layers[: self.config.layers_run]:
            states = layer(states)
        features: torch.Tensor = states.view(batch, frames, *states.shape[1:]).to(video.dtype)
        return features

    def _check(self, video: torch.Tensor) -> None:
        config = self.config
        side = config.image_size
        wanted = f"[B, {config.num_channels}, T, {side}, {side}]"
        if video.ndim != 5 or (video.shape[1], *video.shape[3:]) != (
            config.num_channels,
            side,
            side,
        ):
            raise InvalidSetting(
                f"the LanguageBind video tower takes {wanted}, not {list(video.shape)}; resize and "
                "crop the frames first"
            )
        frames, block = int(video.shape[2]), config.num_frames
        if frames == 0 or frames % block:
            raise InvalidSetting(
                f"{frames} frames do not divide into blocks of {block}, over which the "
                f"LanguageBind video tower attends; use {nearest_multiple(frames, block)} frames"
            )


def build_tower(
    config: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> LanguageBindVideoTower:
    """Build the tower and load its weights strictly.

    Args:
        config: vision configuration (`hidden_size`, `num_hidden_layers`, `patch_size`, ...), flat
            or under `vision_config`. `hidden_act` defaults to exact GELU, `num_frames` to 8,
            `mm_vision_select_layer` (or `select_layer`) to -2.
        state: weights under any common prefix, or none: what stands before
            `embeddings.class_embedding`. Beside `model.video_tower.video_tower.` and
            `vision_model.` the other parts of these two checkpoints (language model, projector
            and image tower; text tower and heads) may lie; any other key is an error. The tower
            shares the weights' memory.

    Returns:
        The tower in eval mode, without gradients, in the weights' dtype.

    Raises:
        UnsupportedModel: if a weight is missing, unexpected or of another shape (all are named),
            there are several towers, or the configuration is not of a video tower.
    """
    sizes = TowerConfig.from_dict(config)
    prefix = prefix_of(state)
    with torch.device("meta"):
        tower = LanguageBindVideoTower(sizes)
    wanted = tower.state_dict()
    given = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
    given.pop("embeddings.position_ids", None)  # a buffer that older transformers saved
    wrong = {
        "missing": [prefix + key for key in wanted if key not in given],
        "unexpected": [name for key, name in given.items() if key not in wanted]
        + unknown_keys(state, prefix),
        "of another shape": [
            f"{given[key]} {list(state[given[key]].shape)}, not {list(tensor.shape)}"
            for key, tensor in wanted.items()
            if key in given and state[given[key]].shape != tensor.shape
        ],
    }
    if any(wrong.values()):
        found = "; ".join(_list(what, keys) for what, keys in wrong.items() if keys)
        raise UnsupportedModel(
            f"these are not the weights of a LanguageBind video tower of {sizes}: {found}"
        )
    tower.load_state_dict({key: state[given[key]] for key in wanted}, assign=True)
    return tower.eval().requires_grad_(False)


def _list(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{what}: {', '.join(keys[:_NAMED])}{more}"

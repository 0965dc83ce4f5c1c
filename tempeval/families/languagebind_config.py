"""Sizes and weight names of a LanguageBind video tower."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOG = logging.getLogger(__name__)

#: Where the two repositories of Video-LLaVA keep the tower.
PREFIXES = ("model.video_tower.video_tower.", "vision_model.")

# What lies beside the tower in those repositories, by where it is: language model, projector and
# image tower; text tower and heads. A name that ends in a dot stands for all below it.
_BESIDE = {
    "model.video_tower.": (
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.",
        "model.norm.weight",
        "model.mm_projector.",
        "model.image_tower.",
    ),
    "vision_model.": (
        "logit_scale",
        "text_model.",
        "text_projection.weight",
        "visual_projection.weight",
    ),
}

# Weights that a tower has once: what stands before one is its prefix. The second serves where the
# first is missing, so that the error names what is missing under the prefix in use.
_ANCHORS = ("embeddings.class_embedding", "embeddings.patch_embedding.weight")

#: Channels per head of every CLIP vision tower; only used where a checkpoint has no configuration.
_HEAD_CHANNELS = 64


def _quick_gelu(states: torch.Tensor) -> torch.Tensor:
    return states * torch.sigmoid(1.702 * states)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
}


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of a LanguageBind video tower.

    Attributes:
        hidden_size: C.
        intermediate_size: width of the MLP.
        num_hidden_layers: layers in the checkpoint.
        num_attention_heads: heads, of temporal and spatial attention alike.
        image_size: side of a frame in pixels.
        patch_size: side of a patch in pixels.
        num_frames: frames per block.
        num_channels: colours.
        layer_norm_eps: epsilon of every layer norm.
        hidden_act: activation of the MLP. Exact GELU where the configuration has none: CLIP's own
            default in transformers, `quick_gelu`, is not what the tower was trained with.
        select_layer: which of the `num_hidden_layers + 1` hidden states is returned.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_frames: int = 8
    num_channels: int = 3
    layer_norm_eps: float = 1e-5
    hidden_act: str = "gelu"
    select_layer: int = -2

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise UnsupportedModel(
                f"hidden_size={self.hidden_size} does not divide into "
                f"{self.num_attention_heads} heads"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UnsupportedModel(
                f"hidden_act={self.hidden_act!r} of the LanguageBind video tower is not one of "
                f"{', '.join(ACTIVATIONS)}"
            )
        if self.hidden_act != "gelu":
            _LOG.warning(
                "the LanguageBind video tower runs with hidden_act=%r, as its configuration says; "
                "the released one was trained with exact GELU",
                self.hidden_act,
            )
        states = self.num_hidden_layers + 1
        if not -states <= self.select_layer < states:
            raise UnsupportedModel(
                f"select_layer={self.select_layer} is not one of the {states} hidden states "
                f"({-states} to {states - 1}) of the LanguageBind video tower"
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> TowerConfig:
        """Read the sizes from a configuration; keys that it doesn't know are ignored.

        Raises:
            UnsupportedModel: if a size is missing, or the configuration is of an image tower.
        """
        vision = {**config, **(config.get("vision_config") or {})}
        if not vision.get("add_time_attn", True):
            raise UnsupportedModel(
                "add_time_attn is false: this is LanguageBind's image tower, not its video tower"
            )
        names = {field.name for field in fields(cls)}
        given = {k: v for k, v in vision.items() if k in names and v is not None}
        if vision.get("mm_vision_select_layer") is not None:
            given["select_layer"] = vision["mm_vision_select_layer"]
        if missing := [name for name in _REQUIRED if name not in given]:
            raise UnsupportedModel(
                f"the configuration of the LanguageBind video tower lacks {', '.join(missing)}; "
                "a checkpoint may have it under vision_config in its config.json"
            )
        return cls(**given)

    @property
    def num_tokens(self) -> int:
        """Tokens per frame: CLS and patches."""
        return 1 + (self.image_size // self.patch_size) ** 2

    @property
    def layers_run(self) -> int:
        """Layers before the selected hidden state."""
        return self.select_layer % (self.num_hidden_layers + 1)

    @property
    def activation(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The function that `hidden_act` names."""
        return ACTIVATIONS[self.hidden_act]


_REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
)


def prefix_of(state: Mapping[str, Any]) -> str:
    """Return the prefix under which weights hold the tower: what stands before its CLS token.

    The image tower of a Video-LLaVA checkpoint, beside its video tower, does not count. Empty for
    no prefix, and where no tower is found.

    Raises:
        UnsupportedModel: if there are several towers.
    """
    for anchor in _ANCHORS:
        keys = [key for key in state if key == anchor or key.endswith("." + anchor)]
        prefixes = [key.removesuffix(anchor) for key in keys]
        own = [
            prefix
            for key, prefix in zip(keys, prefixes, strict=True)
            if not any(_is_beside(key, other) for other in prefixes)
        ]
        if len(own) > 1:
            names = ", ".join(prefix or "no prefix" for prefix in own)
            raise UnsupportedModel(
                f"the weights hold {len(own)} vision towers, under {names}; leave one of them"
            )
        if own:
            return own[0]
    return ""


def unknown_keys(state: Mapping[str, Any], prefix: str) -> list[str]:
    """Return the keys outside `prefix` that belong to no other part of the two checkpoints."""
    return [key for key in state if not key.startswith(prefix) and not _is_beside(key, prefix)]


def _is_beside(key: str, prefix: str) -> bool:
    """Whether a key is of another part of the checkpoint whose tower is under `prefix`."""
    for place, parts in _BESIDE.items():
        root, found, _ = prefix.partition(place)
        if not found:
            continue
        for part in parts:
            if key == root + part or (part.endswith(".") and key.startswith(root + part)):
                return True
    return False


def sizes_from_weights(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Read a tower's configuration from the shapes of its weights.

    The released Video-LLaVA checkpoint holds the tower but not its configuration. Heads leave no
    trace in the shapes: they have 64 channels, as in every CLIP, and their number is left out where
    the width is not of such heads.

    Raises:
        UnsupportedModel: if a weight that tells a size is missing.
    """
    prefix = prefix_of(state)

    def shape(key: str) -> torch.Size:
        if prefix + key not in state:
            raise UnsupportedModel(
                f"the checkpoint has no {prefix + key}; it holds no LanguageBind video tower"
            )
        return state[prefix + key].shape

    width, channels, patch, _ = shape("embeddings.patch_embedding.weight")
    positions = shape("embeddings.position_embedding.weight")[0]
    numbers = re.compile(re.escape(prefix) + r"encoder\.layers\.(\d+)\.")
    depth = 1 + max((int(m[1]) for m in map(numbers.match, state) if m), default=-1)
    heads = {} if width % _HEAD_CHANNELS else {"num_attention_heads": width // _HEAD_CHANNELS}
    return {
        **heads,
        "hidden_size": width,
        "intermediate_size": shape("encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": depth,
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
        "num_channels": channels,
        "num_frames": shape("encoder.layers.0.temporal_embedding")[1],
    }

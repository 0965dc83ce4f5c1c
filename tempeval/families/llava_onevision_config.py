"""The original LLaVA-OneVision's `config.json` as transformers' configuration."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The published tower, without its last layer: LLaVA deletes it before training.
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
_TOWER_NAME = "siglip-so400m-patch14-384"

#: What `config.json` must say of the language model: transformers' defaults are another model's.
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
_TAKEN = (
    *_NEEDED,
    "hidden_act",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
)
#: Settings with the values that are supported; None is a setting left out.
_ONLY: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_patch_merge_type": ("spatial_unpad",),
    "mm_spatial_pool_mode": ("bilinear", None),
    "mm_spatial_pool_stride": (2, None),
    "mm_resampler_type": (None,),
    "mm_use_im_start_end": (False, None),
    "add_faster_video": (False, None),
}
#: Settings of ours and of training that go along.
_KEPT = ("mm_newline_position", "trained_with", "tempeval")


def build_config(config: Mapping[str, Any], tokenizer: Any) -> Any:
    """Return a `LlavaOnevisionConfig`.

    Args:
        config: content of the original `config.json`. A tower other than the published one is
            described under `vision_config`, with as many layers as the checkpoint has.
        tokenizer: with the placeholder tokens `<image>` and `<video>`.

    Raises:
        UnsupportedModel: naming what is missing or of another kind.
    """
    import transformers

    if missing := [name for name in _NEEDED if name not in config]:
        raise UnsupportedModel(f"config.json of LLaVA-OneVision lacks {', '.join(missing)}")
    for name, accepted in _ONLY.items():
        if (found := config.get(name)) not in accepted:
            raise UnsupportedModel(
                f"config.json has {name}={found!r}; supported is {accepted[0]!r}, as in the "
                "published LLaVA-OneVision checkpoints"
            )
    text = {key: config[key] for key in _TAKEN if config.get(key) is not None}
    vision = _vision(config)
    built = transformers.LlavaOnevisionConfig(
        text_config={**text, "model_type": "qwen2"},
        vision_config={**vision, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints(config.get("image_grid_pinpoints"), vision["image_size"]),
        vision_aspect_ratio=_aspect_ratio(config),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=bool(config.get("tie_word_embeddings")),
    )
    for name in _KEPT:
        if config.get(name) is not None:
            setattr(built, name, config[name])
    return built


def pinpoints(given: Any, tile: int) -> list[list[int]]:
    """Return the sizes (height, width) that an image may be padded to.

    Args:
        given: list of (width, height), the same written as JSON, or a range of tiles such as
            `(1x1),...,(6x6)`.
        tile: pixels per side of a tile.

    Raises:
        UnsupportedModel: if it is none of these.
    """
    points = given
    if isinstance(given, str):
        corners = [(int(w), int(h)) for w, h in re.findall(r"\((\d+)x(\d+)\)", given)]
        if corners:
            (w0, h0), (w1, h1) = corners[0], corners[-1]
            points = [[tile * w, tile * h] for w in range(w0, w1 + 1) for h in range(h0, h1 + 1)]
        else:
            try:
                points = json.loads(given)
            except ValueError:
                points = None
    if not isinstance(points, list) or not points or not all(map(_is_size, points)):
        raise UnsupportedModel(
            f"image_grid_pinpoints {given!r} in config.json is not a list of [width, height]"
        )
    return [[height, width] for width, height in points]


def _is_size(point: Any) -> bool:
    return (
        isinstance(point, (list, tuple))
        and len(point) == 2
        and all(isinstance(side, int) and side > 0 for side in point)
    )


def _aspect_ratio(config: Mapping[str, Any]) -> str:
    found = config.get("image_aspect_ratio")
    if not isinstance(found, str) or not re.fullmatch(r"anyres_max_\d+", found):
        raise UnsupportedModel(
            f"config.json has image_aspect_ratio={found!r}; supported is anyres_max_N, such as "
            "'anyres_max_9'"
        )
    return found


def _vision(config: Mapping[str, Any]) -> dict[str, Any]:
    name = str(config.get("mm_vision_tower"))
    described = config.get("vision_config")
    if described is not None and not isinstance(described, dict):
        raise UnsupportedModel(f"vision_config in config.json is not a configuration: {described}")
    sizes = dict(SO400M) if name.rstrip("/").rsplit("/", 1)[-1] == _TOWER_NAME else {}
    sizes.update({key: value for key, value in (described or {}).items() if key in SO400M})
    if missing := [key for key in SO400M if key not in sizes]:
        raise UnsupportedModel(
            f"mm_vision_tower={name!r} is not google/{_TOWER_NAME}; describe another SigLIP tower "
            f"under vision_config in config.json, with {', '.join(missing)}"
        )
    return sizes

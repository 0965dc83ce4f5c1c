"""Load a LLaVA-OneVision checkpoint; refuse one whose parts do not fit together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.llava_onevision_original import load_original
from tempeval.families.loading import Checkpoint, load_checkpoint
from tempeval.families.registry import is_original_onevision
from tempeval.families.revision import local_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.families.base import LoadOptions

MODEL_CLASSES = {"llava_onevision": "LlavaOnevisionForConditionalGeneration"}

#: Where newline tokens lie in a video: one after it, or one after each row of each frame.
NEWLINE_POSITIONS = ("one_token", "grid")


def load_llava_onevision(pretrained: str, options: LoadOptions) -> Checkpoint:
    """Load a folder or hub id, of the Hugging Face format or as it was released.

    Raises:
        UnsupportedModel: if files are missing or broken, weights are missing for some layer, or
            tower and processors are not of the kind this family drives.
        InvalidSetting: if an option's value is not accepted.
    """
    folder = local_folder(pretrained, options.revision)
    config = _read_config(folder)
    if is_original_onevision(config):
        loaded = load_original(folder, config, options)
    else:
        loaded = load_checkpoint(
            pretrained, options, family="llava_onevision", model_classes=MODEL_CLASSES
        )
    _check_tower(pretrained, loaded.model.config)
    _check_processors(pretrained, loaded)
    return loaded


def newline_position(config: Any, options: LoadOptions) -> str:
    """Return where newline tokens lie in a video: the options' choice, else the checkpoint's.

    Raises:
        InvalidSetting: if it is none of `NEWLINE_POSITIONS`.
    """
    own = getattr(config, "tempeval", None) or {}
    found = options.mm_newline_position
    if found is None:
        found = getattr(config, "mm_newline_position", None)
    if found is None:
        found = own.get("mm_newline_position", NEWLINE_POSITIONS[0])
    if found not in NEWLINE_POSITIONS:
        raise InvalidSetting(
            f"mm_newline_position={found!r} is not one of {', '.join(NEWLINE_POSITIONS)}; set it "
            "as a model argument, or in the checkpoint's config.json"
        )
    return str(found)


def _read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` as it is; empty when there is none, which loading refuses by name."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _check_tower(pretrained: str, config: Any) -> None:
    vision, strategy = config.vision_config, config.vision_feature_select_strategy
    if vision.model_type != "siglip_vision_model" or strategy != "full":
        raise UnsupportedModel(
            f"{pretrained!r} has a {vision.model_type} tower with vision_feature_select_strategy "
            f"{strategy!r}; supported is a siglip_vision_model with 'full'"
        )
    if not isinstance(vision.image_size, int) or not isinstance(vision.patch_size, int):
        raise UnsupportedModel(
            f"{pretrained!r}: its tower takes {vision.image_size} px in patches of "
            f"{vision.patch_size}; supported are squares, given by one number"
        )


def _check_processors(pretrained: str, loaded: Checkpoint) -> None:
    config, processor = loaded.model.config, loaded.processor
    side = config.vision_config.image_size
    for part in (processor.image_processor, processor.video_processor):
        size = dict(part.size)
        if (size.get("height"), size.get("width")) != (side, side):
            raise UnsupportedModel(
                f"{pretrained!r}: {type(part).__name__} resizes to {size}, the tower takes "
                f"{side} x {side} px; set its size to that"
            )
    points = [list(point) for point in processor.image_processor.image_grid_pinpoints]
    if points != [list(point) for point in config.image_grid_pinpoints]:
        raise UnsupportedModel(
            f"{pretrained!r}: its image processor has other image_grid_pinpoints than its "
            "config.json, so tiles and tokens would not fit together"
        )

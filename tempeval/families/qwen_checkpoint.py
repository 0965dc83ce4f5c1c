"""Load a Qwen-VL checkpoint; refuse one whose processors cut other patches than the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.errors import UnsupportedModel
from tempeval.families import loading

if TYPE_CHECKING:
    from tempeval.families.base import LoadOptions

MODEL_CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}


def load_checkpoint(pretrained: str, options: LoadOptions) -> loading.Checkpoint:
    """Load a folder or hub id.

    Raises:
        UnsupportedModel: if files are missing or broken, weights are missing for some layer, or
            the model is of another kind.
        InvalidSetting: if an option's value is not accepted.
    """
    loaded = loading.load_checkpoint(
        pretrained, options, family="qwen_vl", model_classes=MODEL_CLASSES
    )
    vision = loaded.model.config.vision_config
    wanted = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    for part in (loaded.processor.image_processor, loaded.processor.video_processor):
        got = (part.patch_size, part.temporal_patch_size, part.merge_size)
        if got != wanted:
            raise UnsupportedModel(
                f"{pretrained!r}: {type(part).__name__} cuts patches of (size, frames, merge) "
                f"{got}, the model wants {wanted}"
            )
    return loaded

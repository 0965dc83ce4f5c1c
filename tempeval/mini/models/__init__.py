"""The tiny models that can be trained: one small class for each kind, by name."""

from __future__ import annotations

import importlib
import typing
from typing import TYPE_CHECKING

from tempeval.errors import UnknownName

if TYPE_CHECKING:
    from tempeval.mini.models.base import MiniModel

MINI_MODELS = {
    "qwen2_5_vl": "tempeval.mini.models.qwen2_5_vl:MiniQwen",
    "qwen2_5_vl_vrope": "tempeval.mini.models.qwen2_5_vl_vrope:MiniQwenVRoPE",
    "llava_onevision": "tempeval.mini.models.llava_onevision:MiniLlavaOnevision",
    "video_llava": "tempeval.mini.models.video_llava:MiniVideoLlava",
}


def mini_model(name: str) -> MiniModel:
    """Return what is particular to a kind of tiny model.

    Raises:
        UnknownName: if there is none of that name.
    """
    if name not in MINI_MODELS:
        raise UnknownName("mini family", name, MINI_MODELS)
    module, attribute = MINI_MODELS[name].split(":")
    kind = getattr(importlib.import_module(module), attribute)()
    return typing.cast("MiniModel", kind)

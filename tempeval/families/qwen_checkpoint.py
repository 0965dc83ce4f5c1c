"""Load a Qwen-VL checkpoint (weights, processor, tokenizer, chat template); refuse partial ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.revision import check_files, local_folder, revision_of

if TYPE_CHECKING:
    from tempeval.families.base import LoadOptions

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

MODEL_CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: transformers' `...ForConditionalGeneration`, in eval mode, on its device.
        processor: its processor (tokenizer, image and video processor, chat template).
        model_type: `qwen2_vl` or `qwen2_5_vl`.
        revision: commit sha, or `sha256:` content digest.
    """

    model: Any
    processor: Any
    model_type: str
    revision: str


def load_checkpoint(pretrained: str, options: LoadOptions) -> Checkpoint:
    """Load a folder or hub id.

    Raises:
        UnsupportedModel: if files are missing or broken, weights are missing for some layer, or
            the model is of another kind.
        InvalidSetting: if the dtype or device is not accepted.
    """
    import transformers
    from safetensors import SafetensorError

    dtype, device = _dtype(options), _device(options)
    folder = local_folder(pretrained, options.revision)
    check_files(folder)
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if model_type not in MODEL_CLASSES:
        raise UnsupportedModel(
            f"{pretrained!r} has model_type {model_type!r}; family qwen_vl loads "
            f"{', '.join(MODEL_CLASSES)}"
        )
    where = {} if device.type == "cpu" else {"device_map": {"": str(device)}}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder)
        model, report = getattr(transformers, MODEL_CLASSES[model_type]).from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            **where,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UnsupportedModel(f"cannot load {pretrained!r}: {error}") from error
    absent = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if absent:
        raise UnsupportedModel(
            f"{pretrained!r} has no weights, or weights of another shape, for {len(absent)} "
            f"parameters, such as {absent[0]}; they would be random. Download it again"
        )
    _check_parts(pretrained, model, processor)
    return Checkpoint(model.eval(), processor, model_type, revision_of(folder))


def _dtype(options: LoadOptions) -> torch.dtype | str:
    if options.dtype == "auto":
        return torch.float32 if options.device.startswith("cpu") else "auto"
    if options.dtype not in DTYPES:
        raise InvalidSetting(f"dtype={options.dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[options.dtype]


def _device(options: LoadOptions) -> torch.device:
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise InvalidSetting(
            f"device={options.device!r} is not a device; write cpu, cuda or cuda:0"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidSetting(f"device={options.device!r}: no CUDA device here; use device=cpu")
    return device


def _check_parts(pretrained: str, model: Any, processor: Any) -> None:
    """Check that processor, tokenizer and text stack are of the kind this family drives."""
    for part in ("tokenizer", "image_processor", "video_processor"):
        if getattr(processor, part, None) is None:
            raise UnsupportedModel(f"{pretrained!r}: its processor has no {part}")
    if processor.chat_template is None:
        raise UnsupportedModel(f"{pretrained!r} has no chat template")
    if "sliding_attention" in model.config.text_config.layer_types:
        raise UnsupportedModel(
            f"{pretrained!r} has sliding-window layers (use_sliding_window), which a shared prefix "
            "does not support; set use_sliding_window to false in its config.json"
        )
    vision = model.config.vision_config
    wanted = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    for part in (processor.image_processor, processor.video_processor):
        got = (part.patch_size, part.temporal_patch_size, part.merge_size)
        if got != wanted:
            raise UnsupportedModel(
                f"{pretrained!r}: {type(part).__name__} cuts patches of (size, frames, merge) "
                f"{got}, the model wants {wanted}"
            )

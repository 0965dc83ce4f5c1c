"""What loading has in common between families: options, weights, refusal of what cannot work."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.generation import check_generation_file, read_generation
from tempeval.families.quantization import check_quantization
from tempeval.families.revision import check_files, local_folder, revision_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tempeval.families.base import LoadOptions

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: transformers' `...ForConditionalGeneration`, in eval mode, on its device.
        processor: its processor (tokenizer, image and video processor, chat template).
        model_type: of its `config.json`.
        revision: commit sha, or `sha256:` content digest.
    """

    model: Any
    processor: Any
    model_type: str
    revision: str


def load_checkpoint(
    pretrained: str,
    options: LoadOptions,
    *,
    family: str,
    model_classes: Mapping[str, str | type],
    needs_template: bool = True,
) -> Checkpoint:
    """Load a folder or hub id with transformers.

    Args:
        pretrained: folder or hub id.
        options: how to load it.
        family: name of the family, for errors.
        model_classes: transformers' class for each `model_type` of the family, or the name that it
            has in transformers.
        needs_template: whether prompts can only be made with a chat template.

    Raises:
        UnsupportedModel: if files are missing or broken, weights are missing for some layer, or
            the model is of another kind.
        InvalidSetting: if the dtype or device is not accepted.
    """
    import transformers

    dtype, device = torch_dtype(options), torch_device(options)
    folder = local_folder(pretrained, options.revision, weights=options.weights)
    check_files(folder, needs_template=needs_template, weights=options.weights)
    check_generation_file(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model_type = config.get("model_type")
    if model_type not in model_classes:
        raise UnsupportedModel(
            f"{pretrained!r} has model_type {model_type!r}; family {family} loads "
            f"{', '.join(model_classes)}"
        )
    if named := config.get("transformers_weights"):
        raise UnsupportedModel(
            f"{pretrained!r} names its file of weights in config.json (transformers_weights="
            f"{named!r}); remove it there, and give the file the usual name"
        )
    check_quantization(pretrained, config, device)
    chosen = model_classes[model_type]
    model_class = getattr(transformers, chosen) if isinstance(chosen, str) else chosen
    load = _load if options.weights else _load_empty
    model, processor = load(pretrained, folder, model_class, dtype, device)
    check_processor(pretrained, processor, needs_template=needs_template)
    check_text_stack(pretrained, model.config.get_text_config())
    return Checkpoint(model.eval(), processor, model_type, revision_of(folder))


def _load(
    pretrained: str, folder: Path, model_class: Any, dtype: torch.dtype | str, device: torch.device
) -> tuple[Any, Any]:
    import transformers
    from safetensors import SafetensorError

    where = {} if device.type == "cpu" else {"device_map": {"": str(device)}}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder)
        model, report = model_class.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `refuse_absent` names them
            **where,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UnsupportedModel(f"cannot load {pretrained!r}: {error}") from error
    refuse_absent(
        pretrained, sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    )
    return model, processor


def _load_empty(
    pretrained: str, folder: Path, model_class: Any, dtype: torch.dtype | str, _device: torch.device
) -> tuple[Any, Any]:
    """Make the model of a checkpoint without its weights; buffers are as they would be."""
    import transformers
    from accelerate import init_empty_weights

    try:
        processor = transformers.AutoProcessor.from_pretrained(folder)
        config = model_class.config_class.from_pretrained(folder)
        more = {} if dtype == "auto" else {"dtype": dtype}
        with init_empty_weights(include_buffers=False):
            model = model_class._from_config(config, attn_implementation="sdpa", **more)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UnsupportedModel(f"cannot load {pretrained!r}: {error}") from error
    read_generation(folder, model, processor.tokenizer)
    return model, processor


def torch_dtype(options: LoadOptions) -> torch.dtype | str:
    """Return what transformers takes as `dtype`.

    Raises:
        InvalidSetting: if it is not accepted.
    """
    if options.dtype == "auto":
        return torch.float32 if options.device.startswith("cpu") else "auto"
    if options.dtype not in DTYPES:
        raise InvalidSetting(f"dtype={options.dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[options.dtype]


def torch_device(options: LoadOptions) -> torch.device:
    """Return the device.

    Raises:
        InvalidSetting: if it is none, or not here.
    """
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise InvalidSetting(
            f"device={options.device!r} is not a device; write cpu, cuda or cuda:0"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidSetting(f"device={options.device!r}: no CUDA device here; use device=cpu")
    return device


def refuse_absent(pretrained: str, absent: Sequence[str]) -> None:
    """Refuse a checkpoint that leaves parameters without weights.

    Args:
        pretrained: what was loaded, as given.
        absent: names of parameters without weights, or with weights of another shape.

    Raises:
        UnsupportedModel: naming the first.
    """
    if absent:
        raise UnsupportedModel(
            f"{pretrained!r} has no weights, or weights of another shape, for {len(absent)} "
            f"parameters, such as {absent[0]}; they would be random. Download it again"
        )


def check_processor(pretrained: str, processor: Any, *, needs_template: bool = True) -> None:
    """Check that a processor has all parts, and a chat template if one is needed.

    Raises:
        UnsupportedModel: naming what it lacks.
    """
    for part in ("tokenizer", "image_processor", "video_processor"):
        if getattr(processor, part, None) is None:
            raise UnsupportedModel(f"{pretrained!r}: its processor has no {part}")
    if needs_template and processor.chat_template is None:
        raise UnsupportedModel(f"{pretrained!r} has no chat template")


def check_text_stack(pretrained: str, text_config: Any) -> None:
    """Refuse a text stack whose layers do not see the whole prefix.

    Raises:
        UnsupportedModel: if there are sliding-window layers.
    """
    if "sliding_attention" in (getattr(text_config, "layer_types", None) or ()):
        raise UnsupportedModel(
            f"{pretrained!r} has sliding-window layers (use_sliding_window), which a shared prefix "
            "does not support; set use_sliding_window to false in its config.json"
        )


def check_rope_type(rotary: Any) -> None:
    """Refuse a rotary module whose frequencies change with the length of the prompt.

    Raises:
        UnsupportedModel: naming the type.
    """
    if "dynamic" in rotary.rope_type or rotary.rope_type == "longrope":
        raise UnsupportedModel(
            f"rope_type {rotary.rope_type!r} changes its frequencies with the prompt's length, "
            "so a prefix can't be shared; use 'default', 'linear', 'yarn' or 'llama3'"
        )

"""Load `LanguageBind/Video-LLaVA-7B` as it was released: Vicuna, LanguageBind tower, projector.

Its `config.json` calls itself `llava`, a name that transformers gives to another model, so it is
read as JSON and never through transformers' automatic classes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from tempeval.errors import UnsupportedModel
from tempeval.families.generation import check_generation_file, read_generation
from tempeval.families.languagebind import build_tower
from tempeval.families.languagebind_config import sizes_from_weights
from tempeval.families.loading import torch_device, torch_dtype
from tempeval.families.quantization import refuse_quantized
from tempeval.families.revision import check_no_adapter
from tempeval.families.video_llava_tokenizer import load_tokenizer
from tempeval.families.video_llava_vision import OriginalVision
from tempeval.families.video_llava_weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tempeval.families.base import LoadOptions
    from tempeval.families.languagebind import LanguageBindVideoTower

#: What `config.json` must say of the language model: transformers' defaults are another model's.
_NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
_TAKEN = (
    *_NEEDED,
    "num_key_value_heads",
    "hidden_act",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "trained_with",
)


def load_original(
    folder: Path, config: Mapping[str, Any], options: LoadOptions
) -> tuple[Any, Any, OriginalVision]:
    """Load language model, tokenizer and vision side.

    Args:
        folder: checkpoint folder.
        config: its `config.json`.
        options: device and dtype.

    Returns:
        transformers' `LlamaForCausalLM`, its tokenizer, and tower with projector.

    Raises:
        UnsupportedModel: if files or weights are missing, unexpected or of another kind.
        InvalidSetting: if the dtype or device is not accepted.
    """
    _check_config(config)
    check_no_adapter(folder)
    refuse_quantized(str(folder), config, "the original layout")
    check_generation_file(folder)
    tokenizer = load_tokenizer(folder)
    weights = read_weights(folder)
    tower = _build_tower(folder, config, weights.tower)
    projector = build_projector(str(config.get("mm_projector_type")), weights.projector)
    first = cast("nn.Linear", projector[0])
    if (first.in_features, first.out_features) != (tower.config.hidden_size, config["hidden_size"]):
        raise UnsupportedModel(
            f"the projector maps {first.in_features} to {first.out_features} channels; the tower "
            f"has {tower.config.hidden_size}, the language model {config['hidden_size']}"
        )
    model = _load_language_model(config, weights.language, options)
    read_generation(folder, model, tokenizer)
    where = {"device": model.device, "dtype": model.dtype}
    vision = OriginalVision(tower.to(**where), projector.to(**where))
    return model, tokenizer, vision


def build_projector(kind: str, state: Mapping[str, torch.Tensor]) -> nn.Sequential:
    """Build the two-layer projector: linear, exact GELU, linear.

    Args:
        kind: `mm_projector_type`; `mlp2x_gelu` only.
        state: `0.weight`, `0.bias`, `2.weight`, `2.bias`.

    Raises:
        UnsupportedModel: for another kind, or other weights.
    """
    if kind != "mlp2x_gelu":
        raise UnsupportedModel(
            f"mm_projector_type={kind!r} is not supported; Video-LLaVA has 'mlp2x_gelu'"
        )
    wanted = {"0.weight", "0.bias", "2.weight", "2.bias"}
    if set(state) != wanted:
        raise UnsupportedModel(
            f"the projector has weights {sorted(state) or 'none'}, not {sorted(wanted)} "
            "(under model.mm_projector.)"
        )
    out_width, in_width = state["0.weight"].shape
    with torch.device("meta"):
        projector = nn.Sequential(
            nn.Linear(in_width, out_width), nn.GELU(), nn.Linear(out_width, out_width)
        )
    try:
        projector.load_state_dict(dict(state), assign=True)
    except RuntimeError as error:
        raise UnsupportedModel(f"the projector's weights do not fit together: {error}") from error
    return projector.eval().requires_grad_(False)


def _check_config(config: Mapping[str, Any]) -> None:
    if missing := [name for name in _NEEDED if name not in config]:
        raise UnsupportedModel(f"config.json of Video-LLaVA lacks {', '.join(missing)}")
    for name in ("mm_use_im_start_end", "mm_use_im_patch_token"):
        if config.get(name):
            raise UnsupportedModel(
                f"{name} is true: this checkpoint puts tokens around its frames that Video-LLaVA "
                "does not have; it is not supported"
            )


def _build_tower(
    folder: Path, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> LanguageBindVideoTower:
    layer = {"mm_vision_select_layer": config.get("mm_vision_select_layer")}
    return build_tower(
        {**sizes_from_weights(state), **_tower_config(folder, config), **layer}, state
    )


def _tower_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of its tower: nothing, as released.

    It may be said under `vision_config`, or in a copy of the tower's repository in the folder.
    """
    if config.get("vision_config"):
        return dict(config["vision_config"])
    name = str(config["mm_video_tower"]).rsplit("/", maxsplit=1)[-1]
    path = folder / name / "config.json"
    if name in ("", ".", "..") or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnsupportedModel(f"{path} is not a configuration")
    return dict(found.get("vision_config") or found)


def _load_language_model(
    config: Mapping[str, Any], state: dict[str, torch.Tensor], options: LoadOptions
) -> Any:
    import transformers

    device = torch_device(options)
    where = {} if device.type == "cpu" else {"device_map": {"": str(device)}}
    text = transformers.LlamaConfig(**{key: config[key] for key in _TAKEN if key in config})
    try:
        model, report = transformers.LlamaForCausalLM.from_pretrained(
            None,
            config=text,
            state_dict=state,
            dtype=torch_dtype(options),
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **where,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UnsupportedModel(f"cannot load the language model of Video-LLaVA: {error}") from error
    wrong = {
        what: sorted(map(str, report[what]))
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report[what]
    }
    if wrong:
        raise UnsupportedModel(f"the language model of Video-LLaVA was saved with {wrong}")
    return model.eval()

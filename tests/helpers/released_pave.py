"""A synthetic PAVE in exactly the released layout, for any family with a Qwen2 text model."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

PATCH_PREFIX = "base_model.model.model.temporal_aggregator."
#: Before `layers.N`: the original model, and peft on transformers' class, releases 4 and 5.
NAMINGS = {
    "original": "base_model.model.model.",
    "v4": "base_model.model.language_model.model.",
    "v5": "base_model.model.model.language_model.",
}
PROJECTIONS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


@dataclass(frozen=True)
class Released:
    """What was written, for references.

    Attributes:
        path: the folder, or the zip file.
        patch: the patch's weights under bare names.
        lora: (A, B) by `layers.N...` name.
        scale: alpha / r.
        side: channels of the side channel.
    """

    path: Path
    patch: dict[str, torch.Tensor]
    lora: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float
    side: int


def patch_state(
    *, side: int, query: int, output: int, hidden: int = 32, layers: int = 2, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return a patch's random weights under bare official names (papers.md A2); none is zero."""
    shapes: dict[str, tuple[int, ...]] = {
        "input_mapping.weight": (hidden, side),
        "input_mapping.bias": (hidden,),
        "query_input_mapping.weight": (hidden, query),
        "query_input_mapping.bias": (hidden,),
    }
    for number in range(layers):
        layer = f"cross_attn_layers.{number}."
        for name in "qkv":
            shapes[f"{layer}attn.{name}_linear.weight"] = (hidden, hidden)
            shapes[f"{layer}attn.{name}_linear.bias"] = (hidden,)
        shapes[f"{layer}ffn.0.weight"] = shapes[f"{layer}ffn.0.bias"] = (hidden,)
        shapes[f"{layer}ffn.1.weight"] = (2 * hidden, hidden)
        shapes[f"{layer}ffn.3.weight"] = (hidden, 2 * hidden)
    shapes |= {
        "output_mapping.0.weight": (2 * hidden, hidden),
        "output_mapping.0.bias": (2 * hidden,),
        "output_mapping.2.weight": (output, 2 * hidden),
        "output_mapping.2.bias": (output,),
        "output_norm.weight": (output,),
        "output_norm.bias": (output,),
    }
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) / (shape[-1] ** 0.5 if len(shape) > 1 else 2.0)
        for key, shape in shapes.items()
    }


def save_released_pave(
    folder: Path,
    family: Any,
    *,
    side: int = 24,
    rank: int = 4,
    alpha: int = 2,
    layers: int = 2,
    seed: int = 0,
    naming: str = "original",
    weights: str = "safetensors",
    zipped: bool = False,
    newline: str | None = "grid",
    **adapter: Any,
) -> Released:
    """Write `non_lora_trainables.bin`, peft's adapter and `config.json` for a loaded family.

    Args:
        folder: where to; its name is the folder inside the zip.
        family: loaded LLaVA-OneVision, of which only widths are read.
        side: channels of the side channel (1024 as published).
        rank: r (64 as published).
        alpha: lora_alpha (16 as published).
        layers: cross-attention layers (2 or 3 as published).
        seed: of the random weights.
        naming: one of `NAMINGS`.
        weights: `safetensors` or `bin`, of the adapter.
        zipped: also zip the folder, beside it, one folder deep.
        newline: `mm_newline_position` in `config.json`; None for no `config.json`.
        adapter: changes of `adapter_config.json`.
    """
    from safetensors.torch import save_file

    text, query = family.text_model, family.model.config.vision_config.hidden_size
    state = patch_state(
        side=side, query=query, output=text.config.hidden_size, layers=layers, seed=seed
    )
    generator = torch.Generator().manual_seed(seed + 1)
    lora = {}
    for number in range(text.config.num_hidden_layers):
        for name in (f"layers.{number}.{projection}" for projection in PROJECTIONS):
            out, into = text.get_submodule(name).weight.shape
            a = torch.randn(rank, into, generator=generator) / into**0.5
            lora[name] = (a, torch.randn(out, rank, generator=generator) / rank**0.5)
    folder.mkdir(parents=True)
    torch.save({PATCH_PREFIX + k: v for k, v in state.items()}, folder / "non_lora_trainables.bin")
    prefix = NAMINGS[naming]
    flat = {
        f"{prefix}{name}.lora_{letter}.weight": matrix
        for name, pair in lora.items()
        for letter, matrix in zip("AB", pair, strict=True)
    }
    if weights == "bin":
        torch.save(flat, folder / "adapter_model.bin")
    else:
        save_file(flat, folder / "adapter_model.safetensors")
    inner = prefix.removeprefix("base_model.model.")
    settings = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "lmms-lab/llava-onevision-qwen2-7b-ov",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_dropout": 0.05,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": [inner + name for name in lora],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    } | adapter
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    if newline is not None:
        config = {"model_type": "pave_qwen2", "mm_newline_position": newline}
        (folder / "config.json").write_text(json.dumps(config))
    path = folder
    if zipped:
        path = folder.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
    return Released(path, state, lora, alpha / rank, side)

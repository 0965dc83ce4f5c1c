"""LoRA adapters in peft's files: what they say, and nothing that they say ignored."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from tempeval.engine.low_rank import LowRank
from tempeval.errors import UnsupportedModel
from tempeval.methods.peft_targets import PREFIX, PROJECTION, Targets
from tempeval.shards import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

_KEY = re.compile(rf"{PREFIX}(layers\.\d+\.{PROJECTION})\.lora_([AB])(?:\.default)?\.weight")
#: How the original model calls the text model's modules.
RELEASED_PREFIX = "base_model.model.model."

#: Options that do not change what a trained adapter computes.
_NEUTRAL = frozenset(
    (
        *(
            "r",
            "lora_alpha",
            "use_rslora",
            "lora_dropout",
            "peft_type",
            "peft_version",
            "task_type",
        ),
        *("base_model_name_or_path", "revision", "auto_mapping", "inference_mode"),
        *("target_modules", "exclude_modules", "layers_pattern", "layers_to_transform"),
        # Of other kinds of initialisation, or defaults of options that are off.
        *("corda_config", "eva_config", "loftq_config", "lora_ga_config", "runtime_config"),
        *("megatron_config", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
    )
)
#: Accepted values of options that are refused otherwise.
_ONLY: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    # The others change the base model's weights too.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}


def has_adapter(folder: Path) -> bool:
    """Tell whether a folder has any file of an adapter."""
    return any((folder / name).is_file() for name in (CONFIG, *WEIGHTS))


def read_adapter(folder: Path) -> LowRank:
    """Read a LoRA adapter of a Qwen2 text model.

    Args:
        folder: with `adapter_config.json`, and `adapter_model.safetensors` or `.bin`.

    Raises:
        UnsupportedModel: if a file is missing or broken; for an option that changes what the
            adapter computes and is not supported; for weights that are missing (also of a layer
            that the configuration names in any way), unexpected, of another rank, or not numbers.
    """
    settings = adapter_settings(folder / CONFIG)
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise UnsupportedModel(f"{str(folder)!r} has {CONFIG} but neither of {', '.join(WEIGHTS)}")
    rank = settings["r"]
    matrices = paired(read_file(path), rank, str(path))
    targets = Targets.of(settings, folder / CONFIG)
    targets.check(matrices, path)
    return LowRank(scale_of(settings), matrices, deeper=targets.deeper(matrices))


def scale_of(settings: Mapping[str, Any]) -> float:
    """Return the factor on B A that an adapter's settings ask for."""
    rank = settings["r"]
    root = math.sqrt(rank) if settings.get("use_rslora") else rank
    return float(settings["lora_alpha"] / root)


def paired(
    weights: Iterable[tuple[str, torch.Tensor]], rank: int, source: str
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return (A, B) by module name from weights under peft's names, in any naming of the model.

    Raises:
        UnsupportedModel: for weights that are missing, unexpected, of another rank, or not numbers.
    """
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in weights:
        found = _KEY.fullmatch(key)
        if found is None:
            raise UnsupportedModel(
                f"{source} has {key}, which is no LoRA of a projection in the language model's "
                "layers; supported are q, k, v, o, gate, up and down"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise UnsupportedModel(f"{source}: {key} has numbers that are not finite floats")
        own = halves.setdefault(found[1], {})
        if found[2] in own:
            raise UnsupportedModel(f"{source} has {key} under two names")
        own[found[2]] = tensor
    if not halves:
        raise UnsupportedModel(f"{source} holds no LoRA weights")
    matrices = {}
    for module, own in sorted(halves.items(), key=_order):
        for name in "AB":
            if name not in own:
                raise UnsupportedModel(f"{source} lacks lora_{name} of {module}")
        a, b = own["A"], own["B"]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
            raise UnsupportedModel(
                f"{source}: {module} has A {tuple(a.shape)} and B {tuple(b.shape)}; with r={rank} "
                f"they are [{rank}, in] and [out, {rank}]"
            )
        matrices[module] = (a, b)
    return matrices


def save_adapter(
    folder: Path, lora: LowRank, *, rank: int, alpha: float, base_model: str | None
) -> None:
    """Write peft's two files under the original model's names.

    Args:
        folder: where to.
        lora: what to write; its scale is `alpha / rank`.
        rank: r.
        alpha: lora_alpha.
        base_model: name of the base model, for the record.
    """
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": [f"model.{module}" for module in lora.matrices],
    }
    save_file(
        {RELEASED_PREFIX + key: value for key, value in flat(lora).items()}, folder / WEIGHTS[0]
    )
    (folder / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def flat(lora: LowRank) -> dict[str, torch.Tensor]:
    """Return the matrices as `{module}.lora_A.weight` and `{module}.lora_B.weight`, on the CPU."""
    return {
        f"{module}.lora_{name}.weight": matrix.detach().cpu().contiguous()
        for module, pair in lora.matrices.items()
        for name, matrix in zip("AB", pair, strict=True)
    }


def _order(item: tuple[str, Any]) -> tuple[int, str]:
    _, number, rest = item[0].split(".", 2)
    return int(number), rest


def adapter_settings(path: Path) -> dict[str, Any]:
    """Read a LoRA's `adapter_config.json`.

    Raises:
        UnsupportedModel: if it cannot be read, or has an option that is not supported.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnsupportedModel(f"an adapter needs {path}: {error}") from error
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise UnsupportedModel(f"{path} is not of a LoRA adapter (peft_type 'LORA')")
    for name, value in settings.items():
        if name in _ONLY and value is not None and value not in _ONLY[name]:
            raise UnsupportedModel(
                f"{path} has {name}={value!r}; supported is {', '.join(map(repr, _ONLY[name]))}"
            )
        if name not in _ONLY and name not in _NEUTRAL and value:
            raise UnsupportedModel(
                f"{path} has {name}={value!r}, which is not supported; merge the adapter with "
                "peft, or train it without"
            )
    for name, kind in (("r", int), ("lora_alpha", (int, float))):
        value = settings.get(name)
        if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
            raise UnsupportedModel(f"{path} has {name}={value!r}; it must be a number above 0")
    return settings

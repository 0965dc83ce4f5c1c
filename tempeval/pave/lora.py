"""Trainable low-rank changes of a family's text stack, by peft."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tempeval.engine.low_rank import LowRank
    from tempeval.families.base import Family
    from tempeval.pave.config import LoraSettings

ADAPTER = "default"


def add_lora(family: Family, settings: LoraSettings) -> None:
    """Put low-rank changes on every linear map of the decoder layers, in place.

    They start at exactly nothing. The base's own weights stay frozen.

    Args:
        family: the base model.
        settings: rank, alpha and dropout; rank 0 adds nothing.
    """
    if settings.r == 0:
        return
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=linear_names(family.text_model),
        bias="none",
    )
    inject_adapter_in_model(config, family.text_model, ADAPTER)


def linear_names(text_model: nn.Module) -> list[str]:
    """Return the dotted names of all linear maps of the decoder layers."""
    return [
        name
        for name, module in text_model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("layers.")
    ]


def lora_weights(family: Family) -> dict[str, nn.Parameter]:
    """Return the trainable matrices by their names inside the text model."""
    return {
        name: weight for name, weight in family.text_model.named_parameters() if "lora_" in name
    }


def trained_lora(family: Family, settings: LoraSettings) -> LowRank | None:
    """Return the low-rank changes as the engine applies them, on the CPU; None for rank 0."""
    if settings.r == 0:
        return None
    from tempeval.engine.low_rank import LowRank

    matrices: dict[str, tuple[Tensor, Tensor]] = {}
    weights: Mapping[str, nn.Parameter] = lora_weights(family)
    for name, weight in weights.items():
        module, _, kind = name.removesuffix(f".{ADAPTER}.weight").rpartition(".")
        if kind == "lora_A":
            other = weights[f"{module}.lora_B.{ADAPTER}.weight"]
            matrices[module] = (weight.detach().cpu().clone(), other.detach().cpu().clone())
    return LowRank(settings.alpha / settings.r, matrices)

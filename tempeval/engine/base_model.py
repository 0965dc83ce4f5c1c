"""Load a base model, also one that is given as an adapter in peft's files."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tempeval.engine.low_rank import check_plain, merged_weight
from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.registry import family_class, family_of
from tempeval.families.revision import adapted_base, adapter_place, local_folder, revision_of
from tempeval.methods.peft_adapter import CONFIG, WEIGHTS, adapter_settings, scale_of
from tempeval.shards import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tempeval.families.base import Family, LoadOptions

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
#: What modules were called in other releases or layouts, and what they may be called here.
_NAMINGS = (
    ("", ""),
    ("language_model.model.", "model.language_model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head", "lm_head"),
    ("model.language_model.", "model."),
    ("model.", "model.language_model."),
    ("", "model."),
)


def load_family(pretrained: str, options: LoadOptions, family: str | None = None) -> Family:
    """Load a checkpoint; of an adapter, its base model with the adapter merged into it once.

    Args:
        pretrained: folder or hub id, of a whole checkpoint or of a LoRA adapter in peft's files.
        options: how to load it.
        family: name of the family; None reads it from the checkpoint.

    Raises:
        TempevalError: naming what is missing, broken or not supported.
    """
    place = adapter_place(pretrained, options.revision)
    if place is None:
        name = family or family_of(pretrained, options.revision)
        return family_class(name).load(pretrained, options)
    settings = adapter_settings(place / CONFIG)
    base, revision = adapted_base(place)
    local_folder(base, revision)  # its refusal names the base
    loaded = family_class(family or family_of(base, revision)).load(
        base, replace(options, revision=revision)
    )
    if options.weights:
        _merge(loaded, place, settings)
    own, below = revision_of(place), loaded.revision
    loaded.pretrained, loaded.options = pretrained, options
    loaded.adapted = {"base_model": base, "base_revision": below, "adapter_revision": own}
    loaded.revision = f"{below}+{own}"
    return loaded


@torch.no_grad()
def _merge(family: Family, place: Path, settings: Mapping[str, Any]) -> None:
    """Add a LoRA's products to the weights of the maps that it names.

    Raises:
        UnsupportedModel: for a change of something that the model does not have as a linear map of
            that size, or a part that is lost.
    """
    path = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
    if path is None:
        raise UnsupportedModel(f"{str(place)!r} has {CONFIG} but neither of {', '.join(WEIGHTS)}")
    modules = dict(family.model.named_modules())
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in read_file(path):
        match = _KEY.fullmatch(key)
        if match is None:
            raise UnsupportedModel(
                f"{path} has {key}, which is no low-rank change of a linear map; merge it into its "
                "base model with peft, and give the merged folder"
            )
        name = next(_called(match[1], modules), None)
        if name is None:
            raise UnsupportedModel(
                f"{path} changes {match[1]!r}, which is no linear map of "
                f"{settings['base_model_name_or_path']!r}; use the base model that it was trained "
                "on, or merge it with peft"
            )
        halves.setdefault(name, {})[match[2]] = tensor
    _check_complete(halves, modules, settings, path)
    embeddings = family.model.get_input_embeddings().weight
    scale = scale_of(settings)
    for name, pair in halves.items():
        module = modules[name]
        try:
            check_plain(name, module)
        except InvalidSetting as error:
            raise UnsupportedModel(f"{path}: {error}") from error
        if module.weight is embeddings:
            raise UnsupportedModel(
                f"{path} changes {name!r}, whose weights are also the embeddings of the base; "
                "merge it with peft, which separates them"
            )
        a, b = pair["A"], pair["B"]
        out, width = module.weight.shape
        if a.shape != (settings["r"], width) or b.shape != (out, settings["r"]):
            raise UnsupportedModel(
                f"{path}: {name} has A {tuple(a.shape)} and B {tuple(b.shape)}; for a map of "
                f"{width} to {out} with r={settings['r']} they are [{settings['r']}, {width}] and "
                f"[{out}, {settings['r']}]"
            )
        module.weight = merged_weight(module.weight, a, b, scale)


def _called(name: str, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield what a module of some release's naming is called here."""
    for old, new in _NAMINGS:
        if name.startswith(old):
            here = new + name[len(old) :]
            if isinstance(modules.get(here), nn.Linear):
                yield here


def _check_complete(
    halves: Mapping[str, Mapping[str, torch.Tensor]],
    modules: Mapping[str, nn.Module],
    settings: Mapping[str, Any],
    path: Path,
) -> None:
    """Refuse an adapter of which a part is lost."""
    if not halves:
        raise UnsupportedModel(f"{path} holds no LoRA weights")
    for name, pair in halves.items():
        for half in "AB":
            if half not in pair:
                raise UnsupportedModel(f"{path} lacks lora_{half} of {name}")
            if not bool(torch.isfinite(pair[half]).all()):
                raise UnsupportedModel(f"{path}: {name} has numbers that are not finite")
    targets = settings.get("target_modules")
    limits = ("exclude_modules", "layers_to_transform", "layers_pattern")
    if not isinstance(targets, list) or any(settings.get(name) for name in limits):
        return
    named = [t for t in targets if "." not in t]
    for name, module in modules.items():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and last in named and name not in halves:
            raise UnsupportedModel(
                f"{path} has no weights for {name!r}, which target_modules names ({last}); a part "
                "of the adapter is lost, or it is for another base model"
            )

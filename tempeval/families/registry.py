"""Names and `model_type`s to families: strings only, so that listing them imports no torch.

A family of another package is the class that an entry point of its name loads.
"""

from __future__ import annotations

import inspect
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.errors import BrokenPlugin, UnsupportedModel
from tempeval.extensions import Registry, load_object
from tempeval.families.revision import adapted_base, adapter_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.extensions import Extension
    from tempeval.families.base import Family


#: Class name in the `config.json` of `LanguageBind/Video-LLaVA-7B`.
ORIGINAL_VIDEO_LLAVA = "LlavaLlamaForCausalLM"
#: Class name in the `config.json` of `lmms-lab/llava-onevision-qwen2-*-ov`.
ORIGINAL_ONEVISION = "LlavaQwenForCausalLM"


@dataclass(frozen=True)
class FamilyEntry:
    """One line of the family table."""

    name: str
    path: str
    model_types: tuple[str, ...]
    summary: str


_OWN = (
    FamilyEntry(
        "qwen_vl",
        "tempeval.families.qwen_vl:QwenVL",
        ("qwen2_vl", "qwen2_5_vl"),
        "Qwen2-VL and Qwen2.5-VL",
    ),
    FamilyEntry(
        "llava_onevision",
        "tempeval.families.llava_onevision:LlavaOnevision",
        ("llava_onevision",),
        "LLaVA-OneVision: the Hugging Face port, and the original lmms-lab/llava-onevision-*",
    ),
    FamilyEntry(
        "video_llava",
        "tempeval.families.video_llava:VideoLlava",
        ("video_llava",),
        "Video-LLaVA: the Hugging Face port, and the original LanguageBind/Video-LLaVA-7B",
    ),
)


def _read_entry(named: Extension, found: object) -> FamilyEntry:
    from tempeval.families.base import Family

    if not (isinstance(found, type) and issubclass(found, Family)):
        raise BrokenPlugin(named.path, f"{named.path} is not a subclass of Family")
    if missing := sorted(found.__abstractmethods__):
        raise BrokenPlugin(named.path, f"{found.__name__} lacks {', '.join(missing)}")
    called, types = getattr(found, "name", None), getattr(found, "model_types", None)
    if called != named.name:
        raise BrokenPlugin(
            named.path,
            f"the entry point is called {named.name!r} and the family {called!r}; give both one "
            "name",
        )
    if not isinstance(types, tuple) or not types or not all(isinstance(t, str) for t in types):
        raise BrokenPlugin(
            named.path, f"its model_types are {types!r}; accepted: a tuple of values of model_type"
        )
    lines = (inspect.getdoc(found) or "").splitlines()
    return FamilyEntry(named.name, named.path, types, lines[0].rstrip(".") if lines else "")


FAMILIES: Registry[FamilyEntry] = Registry(
    "family", "tempeval.families", _OWN, _read_entry, "List them with: tempeval list families"
)


def family_class(name: str) -> type[Family]:
    """Import a family by name.

    Raises:
        UnknownName: if there is no such family.
        BrokenPlugin: if it is another package's and cannot be used.
    """
    return typing.cast("type[Family]", load_object(FAMILIES[name].path))


def family_module(name: str) -> str:
    """Return the dotted name of the module of a family's class; of this package, unimported."""
    return FAMILIES[name].path.partition(":")[0]


def family_of(pretrained: str, revision: str | None = None) -> str:
    """Name the family of a checkpoint folder or hub id, from its `config.json`.

    That of an adapter in peft's files is its base model's.

    Raises:
        UnsupportedModel: if there is no `config.json`, or no family loads its `model_type`.
    """
    if (place := adapter_place(pretrained, revision)) is not None:
        return family_of(*adapted_base(place))
    config = _config(pretrained, revision)
    model_type = str(config.get("model_type", ""))
    if is_original_video_llava(config):
        return "video_llava"
    if is_original_onevision(config):
        return "llava_onevision"
    for entry in FAMILIES.own.values():
        if model_type in entry.model_types:
            return entry.name
    others = [e.name for e in FAMILIES.installed().values() if model_type in e.model_types]
    if len(others) > 1:
        raise UnsupportedModel(
            f"{pretrained!r} has model_type {model_type!r}, which several families load: "
            f"{', '.join(others)}; uninstall the packages of all but one, or name it in "
            "--model_args family=NAME"
        )
    if others:
        return others[0]
    known = ", ".join(f"{t} ({e.name})" for e in FAMILIES.values() for t in e.model_types)
    hint = ""
    if model_type == "llava":
        hint = (
            ". Of the original LLaVA layouts ('llava'), only Video-LLaVA's (with mm_video_tower in "
            f"its config.json) and LLaVA-OneVision's (architectures [{ORIGINAL_ONEVISION!r}]) are "
            "loaded; for others use the Hugging Face format"
        )
    raise UnsupportedModel(
        f"{pretrained!r} has model_type {model_type!r}, which no family loads. Supported: "
        f"{known}{hint}{_broken()}"
    )


def _broken() -> str:
    """Name the families of other packages that might have loaded a model."""
    return "".join(f". {error}" for error in FAMILIES.broken())


def is_original_video_llava(config: Mapping[str, Any]) -> bool:
    """Tell Video-LLaVA as it was released from the other models that call themselves `llava`.

    Args:
        config: content of `config.json`.
    """
    named = config.get("architectures") or [ORIGINAL_VIDEO_LLAVA]
    return (
        config.get("model_type") == "llava"
        and ORIGINAL_VIDEO_LLAVA in named
        and bool(config.get("mm_video_tower"))
    )


def is_original_onevision(config: Mapping[str, Any]) -> bool:
    """Tell LLaVA-OneVision as it was released, by the class that `config.json` names.

    Args:
        config: content of `config.json`.
    """
    return config.get("model_type") in ("llava", "llava_qwen") and ORIGINAL_ONEVISION in (
        config.get("architectures") or ()
    )


def _config(pretrained: str, revision: str | None) -> dict[str, Any]:
    """Read `config.json` as it is: transformers' own reading would refuse or change some."""
    folder = Path(pretrained)
    if not folder.is_dir() and (folder.exists() or pretrained.startswith((".", "/", "~"))):
        raise UnsupportedModel(
            f"{pretrained!r} is not a folder; give a checkpoint folder, a hub id, or 'mini'"
        )
    path = folder / "config.json" if folder.is_dir() else _fetched(pretrained, revision)
    if not path.is_file():
        raise UnsupportedModel(
            f"{pretrained!r} has no config.json; give a folder written by save_pretrained, "
            "or a hub id"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _fetched(pretrained: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(pretrained, "config.json", revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UnsupportedModel(
            f"{pretrained!r} is neither a folder nor a checkpoint on the hub or in its cache: "
            f"{error}"
        ) from error

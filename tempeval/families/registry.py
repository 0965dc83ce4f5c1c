"""Names and `model_type`s to families: strings only, so that listing them imports no torch."""

from __future__ import annotations

import importlib
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.errors import UnknownName, UnsupportedModel

if TYPE_CHECKING:
    from tempeval.families.base import Family


@dataclass(frozen=True)
class FamilyEntry:
    """One line of the family table."""

    name: str
    path: str
    model_types: tuple[str, ...]
    summary: str


FAMILIES: dict[str, FamilyEntry] = {
    entry.name: entry
    for entry in (
        FamilyEntry(
            "qwen_vl",
            "tempeval.families.qwen_vl:QwenVL",
            ("qwen2_vl", "qwen2_5_vl"),
            "Qwen2-VL and Qwen2.5-VL",
        ),
    )
}


def family_class(name: str) -> type[Family]:
    """Import a family by name.

    Raises:
        UnknownName: if there is no such family.
    """
    if name not in FAMILIES:
        raise UnknownName("family", name, FAMILIES)
    module, attribute = FAMILIES[name].path.split(":")
    return typing.cast("type[Family]", getattr(importlib.import_module(module), attribute))


def family_of(pretrained: str, revision: str | None = None) -> str:
    """Name the family of a checkpoint folder or hub id, from its `config.json`.

    Raises:
        UnsupportedModel: if there is no `config.json`, or no family loads its `model_type`.
    """
    model_type = _model_type(pretrained, revision)
    for entry in FAMILIES.values():
        if model_type in entry.model_types:
            return entry.name
    known = ", ".join(f"{t} ({e.name})" for e in FAMILIES.values() for t in e.model_types)
    raise UnsupportedModel(
        f"{pretrained!r} has model_type {model_type!r}, which no family loads. Supported: {known}"
    )


def _model_type(pretrained: str, revision: str | None) -> str:
    folder = Path(pretrained)
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise UnsupportedModel(
                f"{pretrained!r} has no config.json; give a folder written by save_pretrained, "
                "or a hub id"
            )
        try:
            return str(json.loads(config.read_text()).get("model_type", ""))
        except ValueError as error:
            raise UnsupportedModel(f"{config} is not valid JSON: {error}") from error
    if folder.exists() or pretrained.startswith((".", "/", "~")):
        raise UnsupportedModel(
            f"{pretrained!r} is not a folder; give a checkpoint folder, a hub id, or 'mini'"
        )
    from transformers import AutoConfig

    try:
        return str(AutoConfig.from_pretrained(pretrained, revision=revision).model_type)
    except (OSError, ValueError) as error:
        raise UnsupportedModel(
            f"{pretrained!r} is neither a folder nor a checkpoint that transformers can find: "
            f"{error}"
        ) from error

"""Tiny random models to verify on, each loaded as its family loads a checkpoint."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils.logging import disable_progress_bar

from tempeval.errors import UnknownName, UnsupportedModel
from tempeval.families.base import LoadOptions
from tempeval.families.registry import FAMILIES, family_class
from tempeval.verification.tiny_llava_onevision import save_tiny_llava_onevision
from tempeval.verification.tiny_qwen_vl import build_tokenizer, save_tiny_qwen_vl
from tempeval.verification.tiny_video_llava import save_tiny_original, save_tiny_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tempeval.families.base import Family

#: Kinds of tiny models by what they are called: the family that loads them, and what saves one.
TINY: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "qwen2_5_vl": ("qwen_vl", lambda folder: save_tiny_qwen_vl(folder, "qwen2_5_vl")),
    "qwen2_vl": ("qwen_vl", lambda folder: save_tiny_qwen_vl(folder, "qwen2_vl")),
    "llava_onevision": (
        "llava_onevision",
        lambda folder: save_tiny_llava_onevision(folder, build_tokenizer()),
    ),
    "video_llava": ("video_llava", save_tiny_port),
    "video_llava (original layout)": ("video_llava", save_tiny_original),
}


def kinds_of(family: str | None) -> list[str]:
    """Return the kinds of tiny models of a family; of all of this package for None.

    Raises:
        UnknownName: if there is no such family.
        UnsupportedModel: if another package's family has no tiny model.
    """
    if family is None:
        return list(TINY)
    kinds = [kind for kind, (name, _) in TINY.items() if family in (kind, name)]
    if kinds:
        return kinds
    if family not in FAMILIES:
        raise UnknownName("family", family, {*TINY, *FAMILIES.names()}, FAMILIES.hint)
    if not hasattr(family_class(family), "save_tiny"):
        raise UnsupportedModel(
            f"family {family!r} has no tiny model to verify on; give its class a static method "
            "save_tiny(folder) that saves one with random weights"
        )
    return [family]


@contextmanager
def tiny_model(kind: str) -> Iterator[Family]:
    """Load a tiny model in float32 on the CPU, from a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="tempeval-verify-") as place:
        if kind in TINY:
            name, save = TINY[kind]
        else:
            owner: Any = family_class(kind)
            name, save = kind, owner.save_tiny
        folder = Path(place) / "model"
        folder.mkdir()
        disable_progress_bar()
        state = torch.get_rng_state()
        try:
            save(folder)
        finally:
            torch.set_rng_state(state)
        yield family_class(name).load(str(folder), LoadOptions(dtype="float32"))

"""The shards of an original Video-LLaVA checkpoint, sorted into its parts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.errors import UnsupportedModel
from tempeval.shards import read_shards, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_LOG = logging.getLogger(__name__)

TOWER_PREFIX = "model.video_tower.video_tower."
PROJECTOR_PREFIX = "model.mm_projector."
_LANGUAGE_PREFIXES = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")
_SKIPPED_PREFIX = "model.image_tower."
# A buffer that transformers 4.31 saved; it is computed from the configuration.
_SKIPPED_SUFFIX = ".rotary_emb.inv_freq"


@dataclass(frozen=True)
class Weights:
    """An original checkpoint's weights, by part.

    Attributes:
        language: of transformers' `LlamaForCausalLM`, under its names.
        tower: of the video tower, under the checkpoint's names.
        projector: of the projector, under `0.weight` and so on.
    """

    language: dict[str, torch.Tensor]
    tower: dict[str, torch.Tensor]
    projector: dict[str, torch.Tensor]


def read_weights(folder: Path) -> Weights:
    """Read all shards of a folder; the image tower is skipped.

    Raises:
        UnsupportedModel: if a file is missing or broken, or a weight belongs to no part.
    """
    parts = Weights({}, {}, {})
    unknown = []
    for key, tensor in read_shards(folder, _skipped):
        if key.startswith(TOWER_PREFIX):
            parts.tower[key] = tensor
        elif key.startswith(PROJECTOR_PREFIX):
            parts.projector[key.removeprefix(PROJECTOR_PREFIX)] = tensor
        elif key.startswith(_LANGUAGE_PREFIXES):
            parts.language[key] = tensor
        else:
            unknown.append(key)
    if unknown:
        raise UnsupportedModel(
            f"{str(folder)!r} has {len(unknown)} weights that no part of Video-LLaVA takes, such "
            f"as {', '.join(sorted(unknown)[:3])}"
        )
    names = ", ".join(path.name for path in weight_files(folder))
    _LOG.info(
        "video tower: the copy inside the checkpoint, %d weights from %s; the image tower was "
        "skipped",
        len(parts.tower),
        names,
    )
    return parts


def _skipped(key: str) -> bool:
    return key.startswith(_SKIPPED_PREFIX) or key.endswith(_SKIPPED_SUFFIX)

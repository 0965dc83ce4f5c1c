"""The shards of an original Video-LLaVA checkpoint, read safely and sorted into its parts."""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOG = logging.getLogger(__name__)

TOWER_PREFIX = "model.video_tower.video_tower."
PROJECTOR_PREFIX = "model.mm_projector."
_LANGUAGE_PREFIXES = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")
_SKIPPED_PREFIX = "model.image_tower."
# A buffer that transformers 4.31 saved; it is computed from the configuration.
_SKIPPED_SUFFIX = ".rotary_emb.inv_freq"

# In order of preference: index, single file, shards without an index.
_LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors", "model-*-of-*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin", "pytorch_model-*-of-*.bin"),
)


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
    files, indexed = _files(folder)
    found = set()
    for path in files:
        for key, tensor in _read(path):
            found.add(key)
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
    if lost := sorted(key for key in indexed - found if not _skipped(key)):
        raise UnsupportedModel(
            f"{str(folder)!r}: {len(lost)} weights that its index names are in no shard, such as "
            f"{lost[0]}. Download it again"
        )
    names = ", ".join(path.name for path in files)
    _LOG.info(
        "video tower: the copy inside the checkpoint, %d weights from %s; the image tower was "
        "skipped",
        len(parts.tower),
        names,
    )
    return parts


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold the weights of a folder, safetensors before PyTorch's.

    Raises:
        UnsupportedModel: if there are none, or a shard is missing.
    """
    return _files(folder)[0]


def _files(folder: Path) -> tuple[list[Path], set[str]]:
    """Return the weight files, and the keys that an index names (empty without one)."""
    for index, single, pattern in _LAYOUTS:
        if (folder / index).is_file():
            placed = _weight_map(folder / index)
            names = sorted(set(placed.values()))
            return _existing(folder, names), set(placed)
        if (folder / single).is_file():
            return [folder / single], set()
        for shard in sorted(folder.glob(pattern)):
            if match := re.fullmatch(r"(.*)-\d+-of-(\d+)(\.\w+)", shard.name):
                stem, total, suffix = match.groups()
                numbers = [str(n + 1).zfill(len(total)) for n in range(int(total))]
                return _existing(folder, [f"{stem}-{n}-of-{total}{suffix}" for n in numbers]), set()
    accepted = ", ".join(name for index, single, _ in _LAYOUTS for name in (index, single))
    raise UnsupportedModel(f"{str(folder)!r} has no weights; it needs one of {accepted}")


def _existing(folder: Path, names: list[str]) -> list[Path]:
    # An index is data: it may not name files outside its folder.
    if missing := [n for n in names if "/" in n or "\\" in n or not (folder / n).is_file()]:
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} lacks {', '.join(missing)}. Download it again"
        )
    return [folder / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(name) for key, name in placed.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnsupportedModel(f"{index} is not a weight index: {error!r}") from error


def _skipped(key: str) -> bool:
    return key.startswith(_SKIPPED_PREFIX) or key.endswith(_SKIPPED_SUFFIX)


def _read(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of one file that are wanted, without running anything it contains."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a mapping
                    if not _skipped(key):
                        yield key, opened.get_tensor(key)
            return
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise UnsupportedModel(f"cannot read {path}: {error}") from error
    for key, tensor in state.items():
        if not _skipped(key):
            yield key, tensor

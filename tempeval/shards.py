"""The weight files of a checkpoint folder, found and read without running what they contain."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: What reading a damaged file of weights raises, besides `OSError`: unpickling checks little.
DAMAGED = (
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
)
# In order of preference: index, single file, shards without an index.
_LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors", "model-*-of-*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin", "pytorch_model-*-of-*.bin"),
)


def read_shards(
    folder: Path, skipped: Callable[[str], bool] = lambda key: False
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every weight of a folder, shard by shard.

    Args:
        folder: checkpoint folder.
        skipped: tells the names that are not wanted; they are not read.

    Raises:
        UnsupportedModel: if a file is missing or broken, or the index names weights that no shard
            has (raised after the last one).
    """
    files, indexed = _files(folder)
    found = set()
    for path in files:
        for key, tensor in read_file(path, skipped):
            found.add(key)
            yield key, tensor
    if lost := sorted(key for key in indexed - found if not skipped(key)):
        raise UnsupportedModel(
            f"{str(folder)!r}: {len(lost)} weights that its index names are in no shard, such as "
            f"{lost[0]}. Download it again"
        )


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold the weights of a folder, safetensors before PyTorch's.

    Raises:
        UnsupportedModel: if there are none, or a shard is missing.
    """
    return _files(folder)[0]


def read_file(
    path: Path, skipped: Callable[[str], bool] = lambda key: False
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of one file that are wanted, without running anything it contains.

    Raises:
        UnsupportedModel: if it cannot be read, or holds something other than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a mapping
                    if not skipped(key):
                        yield key, opened.get_tensor(key)
            return
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (OSError, *DAMAGED) as error:
        raise UnsupportedModel(f"cannot read {path}: {error!r}") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise UnsupportedModel(f"{path} does not hold weights, that is tensors by name")
    for key, tensor in state.items():
        if not skipped(key):
            yield key, tensor


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

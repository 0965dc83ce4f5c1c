"""The weight files of a checkpoint folder, found and read without running what they contain."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
# Index, single file, shards without an index; in order of preference by format.
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
    weights = _files(folder, _LAYOUTS)
    found = set()
    for path in weights.files:
        for key, tensor in read_file(path, skipped):
            found.add(key)
            yield key, tensor
    if lost := sorted(key for key in weights.keys - found if not skipped(key)):
        raise UnsupportedModel(
            f"{str(folder)!r}: {len(lost)} weights that its index names are in no shard, such as "
            f"{lost[0]}. Download it again"
        )


def weight_files(folder: Path, *, safetensors: bool = False) -> list[Path]:
    """List the files that hold the weights of a folder: those that are loaded.

    Args:
        folder: checkpoint folder.
        safetensors: leave PyTorch's files out, unless they lie beside and are to be compared.

    Raises:
        UnsupportedModel: if there are none, a shard is missing, or there are two sets that differ.
    """
    # Shards without an index are read by none but this module.
    if safetensors and not any((folder / name).is_file() for name in _LAYOUTS[0][:2]):
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} lacks {_LAYOUTS[0][1]}; weights load from safetensors "
            "only. Download it again, or convert it with save_pretrained"
        )
    return list(_files(folder, _LAYOUTS).files)


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


@dataclass(frozen=True)
class _Weights:
    """One complete set of weights of a folder.

    Attributes:
        files: that hold it.
        keys: that an index names; empty without one.
    """

    files: tuple[Path, ...]
    keys: frozenset[str] = frozenset()

    @property
    def names(self) -> str:
        """The files' names, for errors."""
        return ", ".join(path.name for path in self.files)

    @property
    def format(self) -> str:
        """Suffix of the files."""
        return self.files[0].suffix

    @property
    def is_stub(self) -> bool:
        """Whether the files were never fetched: Git LFS leaves a line of text in their place."""
        return any(_starts(path, b"version https://git-lfs") for path in self.files)


def _files(folder: Path, layouts: Sequence[tuple[str, str, str]]) -> _Weights:
    """Return the one set of weights of a folder; other sets beside it must be the same.

    Readers differ in which of several sets they take: transformers a single file before shards and
    safetensors before PyTorch's files, other tools the other way round.

    Raises:
        UnsupportedModel: if there is none, a shard is missing, or two sets differ.
    """
    sets = [found for layout in layouts for found in _sets(folder, *layout)]
    if not sets:
        accepted = ", ".join(name for index, single, _ in layouts for name in (single, index))
        raise UnsupportedModel(f"{str(folder)!r} has no weights; it needs one of {accepted}")
    chosen, *others = sets
    for other in others:
        if other.format != chosen.format and (is_snapshot(folder) or other.is_stub):
            # Of a commit of the hub nothing is left over; a stub holds no weights.
            continue
        if (different := _difference(chosen, other)) is not None:
            raise UnsupportedModel(
                f"{str(folder)!r} holds two different sets of weights, {chosen.names} and "
                f"{other.names} (the first difference is {different}); which one is loaded would "
                "depend on the tool. Move the one that is not meant elsewhere"
            )
    return chosen


def _sets(folder: Path, index: str, single: str, pattern: str) -> Iterator[_Weights]:
    """Yield the sets of one format: the single file first, as transformers takes it."""
    whole = (folder / single).is_file()
    if whole:
        yield _Weights((folder / single,))
    if (folder / index).is_file():
        placed = _weight_map(folder / index)
        names = sorted(set(placed.values()) - {single})
        # An index whose shards are all gone is left over from before they were joined.
        if whole and not any((folder / name).is_file() for name in names):
            return
        names = sorted(set(placed.values()))
        yield _Weights(_existing(folder, names, beside=single if whole else ""), frozenset(placed))
        return
    for shard in sorted(folder.glob(pattern)):
        if match := re.fullmatch(r"(.*)-\d+-of-(\d+)(\.\w+)", shard.name):
            stem, total, suffix = match.groups()
            numbers = [str(n + 1).zfill(len(total)) for n in range(int(total))]
            names = [f"{stem}-{n}-of-{total}{suffix}" for n in numbers]
            yield _Weights(_existing(folder, names, beside=single if whole else ""))
            return


def is_snapshot(folder: Path) -> bool:
    """Tell whether a folder is one commit in the hub's cache, whose name is the commit's."""
    return folder.parent.name == "snapshots" and bool(re.fullmatch(r"[0-9a-f]{40}", folder.name))


def _starts(path: Path, text: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(text)) == text


def _difference(one: _Weights, two: _Weights) -> str | None:
    """Return the first weight in which two sets differ; None if they are the same."""
    with ExitStack() as opened:
        first, second = _opened(one, opened), _opened(two, opened)
        if lone := sorted(first.keys() ^ second.keys()):
            return f"{lone[0]}, which one of them lacks"
        for key in sorted(first):
            here, there = first[key](), second[key]()
            if here.dtype != there.dtype or here.shape != there.shape:
                return key
            if not torch.equal(_bytes(here), _bytes(there)):
                return key
    return None


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _opened(weights: _Weights, opened: ExitStack) -> dict[str, Callable[[], torch.Tensor]]:
    """Return how to read each weight of a set, one at a time."""
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for path in weights.files:
        if path.suffix != ".safetensors":
            # Mapped into memory, so that only what is compared is read.
            found |= {key: partial(_same, tensor) for key, tensor in read_file(path)}
            continue
        try:
            file = opened.enter_context(safe_open(path, framework="pt"))
            found |= {key: partial(file.get_tensor, key) for key in file.keys()}  # noqa: SIM118
        except (OSError, *DAMAGED) as error:
            raise UnsupportedModel(f"cannot load {path}: {error!r}") from error
    return found


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _existing(folder: Path, names: list[str], beside: str = "") -> tuple[Path, ...]:
    # An index is data: it may not name files outside its folder.
    if missing := [n for n in names if "/" in n or "\\" in n or not (folder / n).is_file()]:
        also = f" of the shards that lie beside {beside}; move one of the two elsewhere, or"
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} lacks {', '.join(missing)}"
            + (f"{also} download" if beside else ". Download")
            + " it again"
        )
    return tuple(folder / name for name in names)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(name) for key, name in placed.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnsupportedModel(f"{index} is not a weight index: {error!r}") from error

"""A folder of feature files, looked up by video or scene id, and read safely."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.shards import DAMAGED
from tempeval.side_channels.base import video_id
from tempeval.side_channels.content import content_key
from tempeval.side_channels.shuffle import another, pairs
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.side_channels.base import Doc

SUFFIXES = (".safetensors", ".pt")
"""In the order in which they are looked for."""
NESTED = "video_features"
"""Stem of the file in a folder of its own, as ScanNet features are laid out."""


class FeatureFolder:
    """Files `<id>.safetensors`, `<id>.pt`, or `<id>/video_features.safetensors` or `.pt`.

    Args:
        folder: where they lie.
        shuffle: seed that gives each video the file of another one; None for its own.

    Raises:
        InvalidSetting: if the folder is none.
    """

    def __init__(self, folder: str, shuffle: int | None) -> None:
        self.folder, self.shuffle = Path(folder).expanduser(), shuffle
        if not self.folder.is_dir():
            raise InvalidSetting(
                f"folder={folder!r} is not a folder; give the one that holds <video id>.pt or "
                ".safetensors files"
            )
        self._paired: tuple[int, dict[str, str]] | None = None

    def find(self, doc: Doc) -> Path:
        """Return the file of a video.

        Raises:
            BadSideChannel: if there is none.
        """
        name = video_id(doc)
        own = self._path(name)
        if own is None:
            raise BadSideChannel(
                str(self.folder / name),
                "no such file; accepted: "
                + ", ".join(str(place.relative_to(self.folder)) for place in self._places(name)),
            )
        if self.shuffle is None:
            return own
        found = self._path(another(self._pairs(self.shuffle), name, str(own)))
        if found is None:
            raise BadSideChannel(str(own), "shuffle: the file of the other video is gone")
        return found

    def has(self, doc: Doc) -> bool:
        """Return True if there is a file for a video; never raises."""
        try:
            self.find(doc)
        except BadSideChannel:
            return False
        return True

    def stamp(self, doc: Doc) -> str:
        """Name the content of the file of a video; never raises."""
        try:
            path = self.find(doc)
        except BadSideChannel as error:
            return f"missing: {error.reason}"
        return f"{path.relative_to(self.folder)}: {content_stamp(str(path))}"

    def content(self, doc: Doc) -> str:
        """Name the content of the file of a video, wherever a copy lies; never raises."""
        try:
            return f"{content_key(self.find(doc))}"
        except BadSideChannel as error:
            return f"missing: {error.reason}"

    def files(self) -> Iterator[Path]:
        """Yield the files of all ids, in alphabetical order of these."""
        for name in sorted(self._names()):
            if (path := self._path(name)) is not None:
                yield path

    def _places(self, name: str) -> list[Path]:
        flat = [self.folder / f"{name}{suffix}" for suffix in SUFFIXES]
        return flat + [self.folder / name / f"{NESTED}{suffix}" for suffix in SUFFIXES]

    def _path(self, name: str) -> Path | None:
        # Only plain files: reading a pipe would never end.
        return next((place for place in self._places(name) if place.is_file()), None)

    def _pairs(self, seed: int) -> dict[str, str]:
        """Return the pairs of the ids of all files, of either layout."""
        changed = self.folder.stat().st_mtime_ns
        if self._paired is None or self._paired[0] != changed:
            self._paired = changed, pairs(self._names(), seed)
        return self._paired[1]

    def _names(self) -> list[str]:
        entries = [e for e in self.folder.iterdir() if not e.name.startswith(".")]
        names = {entry.name if entry.is_dir() else entry.stem for entry in entries}
        return [name for name in names if self._path(name) is not None]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a `.safetensors` or `.pt` file; nothing in it is ever run.

    Returns:
        Tensors by name (`features` for a bare one), and metadata.

    Raises:
        BadSideChannel: if the file is not readable, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadSideChannel(
            str(path),
            "it is not a file of tensors alone, and what else is in it is not run "
            f"({_first_line(error)}); save tensors, with torch.save or as .safetensors",
        ) from error
    except (OSError, *DAMAGED) as error:
        raise BadSideChannel(
            str(path), f"the file cannot be read ({_first_line(error)}); write or download it again"
        ) from error
    return _named(path, content), {}


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a `.safetensors` file alone.

    Raises:
        BadSideChannel: if the file is not readable.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise BadSideChannel(
            str(path), f"the file cannot be read ({_first_line(error)})"
        ) from error


def _named(path: Path, content: Any) -> dict[str, torch.Tensor]:
    tensors = content if isinstance(content, dict) else {"features": content}
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise BadSideChannel(
                str(path),
                f"{name!r} is a {type(value).__name__}; accepted: a tensor, or tensors by name",
            )
    return {str(name): value for name, value in tensors.items()}


def the_features(path: Path, tensors: dict[str, torch.Tensor], accepted: str) -> torch.Tensor:
    """Return the tensor called `features`, or the only one, as float32.

    Args:
        path: for errors.
        tensors: of the file.
        accepted: shape in words, for errors.

    Raises:
        BadSideChannel: if there is no such tensor, it is empty, or it has numbers that are not
            finite.
    """
    found = tensors.get("features")
    if found is None and len(tensors) == 1:
        (found,) = tensors.values()
    if found is None:
        raise BadSideChannel(
            str(path), f"it holds tensors {sorted(tensors)}; accepted: one, or one called features"
        )
    shape = tuple(found.shape)
    if not found.is_floating_point() or found.layout != torch.strided:
        raise BadSideChannel(
            str(path), f"its features are {found.dtype}, {found.layout}; accepted: floats, dense"
        )
    if not found.numel():
        raise BadSideChannel(
            str(path), f"its features are empty: shape {shape}; accepted: {accepted}"
        )
    features = found.detach().float()
    wrong = int((~torch.isfinite(features)).sum())
    if wrong:
        raise BadSideChannel(
            str(path), f"{wrong} of its {features.numel()} numbers are not finite; write it again"
        )
    return features


def check_shape(path: Path, features: torch.Tensor, wanted: tuple[int | None, ...]) -> None:
    """Check a shape; None accepts any number.

    Raises:
        BadSideChannel: naming both shapes.
    """
    shape = tuple(features.shape)
    fits = len(shape) == len(wanted) and all(
        size is None or size == got for got, size in zip(shape, wanted, strict=True)
    )
    if not fits:
        named = ", ".join("any" if size is None else str(size) for size in wanted)
        raise BadSideChannel(
            str(path), f"its features have shape {list(shape)}; accepted: [{named}]"
        )


def check_length(path: Path, what: str, got: float, expected: float, tolerance: float) -> None:
    """Check that a file is as long as its video.

    Args:
        path: for errors.
        what: is compared, with its unit.
        got: by the file.
        expected: by the video.
        tolerance: largest difference.

    Raises:
        BadSideChannel: if it looks like another video's.
    """
    if abs(got - expected) > tolerance:
        raise BadSideChannel(
            str(path),
            f"it has {got:g} {what}, but this video calls for {expected:g} (accepted: within "
            f"{tolerance:g}); it looks like another video's",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

"""The side channel of another clip: an ablation that keeps everything but what belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tempeval.calibration_clips import VIDEO_SUFFIXES
from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.video.folder import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def check_shuffle(seed: int | None) -> None:
    """Check the setting `shuffle`.

    Raises:
        InvalidSetting: if it is negative.
    """
    if seed is not None and seed < 0:
        raise InvalidSetting(f"shuffle={seed} must be a seed of 0 or more, or none")


def another(names: Iterable[str], own: str, seed: int, source: str) -> str:
    """Return whose side channel `own` gets under a seed: never its own, and nobody's twice.

    Args:
        names: all there are, `own` among them; their order does not matter.
        own: one of them.
        seed: of the derangement.
        source: path for the error.

    Raises:
        BadSideChannel: if there is no other, or `own` is not among them.
    """
    ordered = sorted(set(names))
    if own not in ordered:
        raise BadSideChannel(source, f"shuffle: {own!r} is not among the {len(ordered)} there are")
    if len(ordered) < 2:
        raise BadSideChannel(source, "shuffle needs another one beside it, and there is none")
    return ordered[int(cyclic_derangement(len(ordered), seed)[ordered.index(own)])]


def cyclic_derangement(count: int, seed: int) -> NDArray[np.int64]:
    """Return int64 `[count]`, a random permutation of one cycle: nothing stays in its place."""
    cycle = np.random.default_rng([seed, count]).permutation(count)
    result = np.empty(count, np.int64)
    result[cycle] = np.roll(cycle, -1)
    return result


class VideoSiblings:
    """Finds the videos beside a video: files, or folders of images beside a folder of images."""

    def __init__(self) -> None:
        # By folder and kind: when it was changed, and what was in it.
        self._listed: dict[tuple[Path, str], tuple[int, list[str]]] = {}

    def another(self, path: str, seed: int) -> str:
        """Return the path of the video whose side channel `path` gets under a seed.

        Raises:
            BadSideChannel: if there is no other video beside it.
        """
        own = Path(path)
        try:
            names = self._names(own)
        except OSError as error:
            raise BadSideChannel(path, f"shuffle: its folder cannot be listed: {error}") from error
        return str(own.parent / another(names, own.name, seed, path))

    def _names(self, own: Path) -> list[str]:
        key = own.parent, "" if own.is_dir() else own.suffix.lower()
        changed = own.parent.stat().st_mtime_ns
        if key not in self._listed or self._listed[key][0] != changed:
            entries = [e for e in own.parent.iterdir() if not e.name.startswith(".")]
            suffixes = VIDEO_SUFFIXES | {key[1]}
            names = [
                entry.name
                for entry in entries
                if (is_frame_folder(entry) if own.is_dir() else entry.suffix.lower() in suffixes)
            ]
            self._listed[key] = changed, names
        return self._listed[key][1]


def is_frame_folder(path: Path) -> bool:
    """Tell whether a path is a folder that holds images."""
    return path.is_dir() and any(e.suffix.lower() in IMAGE_SUFFIXES for e in path.iterdir())

"""The side channel of another clip: an ablation that keeps everything but what belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.video.clip import VIDEO_SUFFIXES
from tempeval.video.folder import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


def check_shuffle(seed: int | None) -> None:
    """Check the setting `shuffle`.

    Raises:
        InvalidSetting: if it is negative.
    """
    if seed is not None and seed < 0:
        raise InvalidSetting(f"shuffle={seed} must be a seed of 0 or more, or none")


def pairs(names: Iterable[str], seed: int) -> dict[str, str]:
    """Return who gets whose side channel under a seed: never its own, and nobody's twice.

    A name that is alone gets itself, which `another` refuses. The order of the names does not
    matter.
    """
    ordered = sorted(set(names))
    chosen = cyclic_derangement(len(ordered), seed).tolist()
    return {own: ordered[other] for own, other in zip(ordered, chosen, strict=True)}


def another(found: Mapping[str, str], own: str, source: str) -> str:
    """Return whose side channel `own` gets.

    Args:
        found: from `pairs`.
        own: one of them.
        source: path for the error.

    Raises:
        BadSideChannel: if there is no other, or `own` is not among them.
    """
    if own not in found:
        raise BadSideChannel(source, f"shuffle: {own!r} is not among the {len(found)} there are")
    if found[own] == own:
        raise BadSideChannel(source, "shuffle needs another one beside it, and there is none")
    return found[own]


def cyclic_derangement(count: int, seed: int) -> NDArray[np.int64]:
    """Return int64 `[count]`, a random permutation of one cycle: nothing stays in its place."""
    cycle = np.random.default_rng([seed, count]).permutation(count)
    result = np.empty(count, np.int64)
    result[cycle] = np.roll(cycle, -1)
    return result


class VideoSiblings:
    """Finds the videos beside a video: files, or folders of images beside a folder of images."""

    def __init__(self) -> None:
        # By folder, kind and seed: when the folder was changed, and the pairs of what was in it.
        self._paired: dict[tuple[Path, str, int], tuple[int, dict[str, str]]] = {}

    def another(self, path: str, seed: int) -> str:
        """Return the path of the video whose side channel `path` gets under a seed.

        Raises:
            BadSideChannel: if there is no other video beside it.
        """
        own = Path(path)
        try:
            found = self._pairs(own, seed)
        except OSError as error:
            raise BadSideChannel(path, f"shuffle: its folder cannot be listed: {error}") from error
        return str(own.parent / another(found, own.name, path))

    def _pairs(self, own: Path, seed: int) -> dict[str, str]:
        key = own.parent, "" if own.is_dir() else own.suffix.lower(), seed
        changed = own.parent.stat().st_mtime_ns
        if key not in self._paired or self._paired[key][0] != changed:
            entries = [e for e in own.parent.iterdir() if not e.name.startswith(".")]
            suffixes = VIDEO_SUFFIXES | {key[1]}
            names = [
                entry.name
                for entry in entries
                if (is_frame_folder(entry) if own.is_dir() else entry.suffix.lower() in suffixes)
            ]
            self._paired[key] = changed, pairs(names, seed)
        return self._paired[key][1]


def is_frame_folder(path: Path) -> bool:
    """Tell whether a path is a folder that holds images."""
    return path.is_dir() and any(e.suffix.lower() in IMAGE_SUFFIXES for e in path.iterdir())

"""What of a benchmark's videos is on disk: each folder is listed once, no video is opened."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

_LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass
class VideoFiles:
    """What is there of the videos that were asked for.

    Attributes:
        wanted: different videos: files, or folders of frames.
        there: those that exist and hold something.
        bytes: of all of them, frames included.
        missing: paths that do not exist, in the order asked for.
        empty: files of no byte, and folders without an image.
        gaps: folders of frames numbered one by one in which numbers are missing, with the first
            number that is.
    """

    wanted: int = 0
    there: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, empty or interrupted."""
        return not (self.missing or self.empty or self.gaps)


class Seen(NamedTuple):
    """One video that was looked at: its bytes, None if it is not there, and its first gap."""

    bytes: int | None
    gap: int | None = None


def survey(
    paths: Iterable[str],
    *,
    sizes: bool = True,
    seen: dict[str, Seen] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VideoFiles:
    """Look for videos.

    Args:
        paths: of the videos; the same one may come up again.
        sizes: whether to count bytes and to look into folders of frames; else only whether a video
            exists is looked at.
        seen: videos that were looked at before by path, and need no second look; grows.
        progress: called with how many videos were looked at and how many there are.

    Returns:
        What is there. A folder that cannot be listed counts as one that is not there.
    """
    seen = {} if seen is None else seen
    wanted = list(dict.fromkeys(paths))
    by_folder: dict[str, set[str]] = defaultdict(set)
    for path in wanted:
        if path not in seen:
            folder, name = os.path.split(path)
            by_folder[folder].add(name)
    done = len(wanted) - sum(map(len, by_folder.values()))
    for folder, names in by_folder.items():
        entries = _listed(folder, names)
        for name in names:
            seen[f"{folder}/{name}"] = _look(entries.get(name), sizes)
            done += 1
            progress(done, len(wanted))
    return _summary(wanted, seen, sizes)


def _summary(wanted: list[str], seen: Mapping[str, Seen], sizes: bool) -> VideoFiles:
    found = VideoFiles(wanted=len(wanted))
    for path in wanted:
        size, gap = seen[path]
        if size is None:
            found.missing.append(path)
        elif sizes and not size:
            found.empty.append(path)
        else:
            found.there += 1
            found.bytes += size
            if gap is not None:
                found.gaps[path] = gap
    return found


def _listed(folder: str, wanted: Collection[str]) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries if entry.name in wanted}
    except OSError:
        return {}


def _look(entry: os.DirEntry[str] | None, sizes: bool) -> Seen:
    if entry is None:
        return Seen(None)
    if not sizes:
        return Seen(0)
    try:
        return _look_inside(entry.path) if entry.is_dir() else Seen(entry.stat().st_size)
    except OSError:  # a link that leads nowhere, or a folder that may not be read
        return Seen(None)


def _look_inside(path: str) -> Seen:
    """Count the images of a folder of frames, one look at each."""
    from tempeval.video.folder import image_suffixes

    suffixes = image_suffixes(path)
    # A look per image, a million of them in a large set: relative to the open folder it is fastest.
    folder = os.open(path, os.O_RDONLY)
    try:
        names = [
            name
            for name in os.listdir(folder)  # noqa: PTH208  # of an open folder
            if name[name.rfind(".") :].lower() in suffixes and name[0] != "."
        ]
        size = sum([os.stat(name, dir_fd=folder).st_size for name in names])
    finally:
        os.close(folder)
    return Seen(size, first_gap(names))


def first_gap(names: Iterable[str]) -> int | None:
    """Return the first number that is missing from the names of a folder's frames.

    Frames are numbered from 0 or 1 on. Folders that number them with a stride (exports of every
    20th frame of a scan) leave out frames of their own choice, so nothing is missed there.

    Args:
        names: file names with their number, such as `00001.jpg`.
    """
    stems = [name[: name.rfind(".")] for name in names]
    if "".join(stems).isdecimal():
        numbers = set(map(int, stems))
    else:
        numbers = {int(match[1]) for stem in stems if (match := _LAST_NUMBER.search(stem))}
    if not numbers:
        return None
    low, high = min(numbers), max(numbers)
    if low <= 1 and high - low + 1 == len(numbers):
        return None
    if math.gcd(*(number - low for number in numbers)) > 1:
        return None
    if low > 1:
        return 1
    return next(number for number in range(low, high) if number not in numbers)

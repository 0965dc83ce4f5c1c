"""What of a benchmark's videos is on disk: each folder is listed once, no video is opened."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

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


def survey(
    paths: Iterable[str],
    *,
    sizes: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VideoFiles:
    """Look for videos.

    Args:
        paths: of the videos; the same one may come up again.
        sizes: whether to count bytes and to look into folders of frames; else only whether a video
            exists is looked at.
        progress: called with how many videos were looked at and how many there are.

    Returns:
        What is there. A folder that cannot be listed counts as one that is not there.
    """
    by_folder: dict[str, dict[str, int]] = defaultdict(dict)
    for path in dict.fromkeys(paths):
        folder, name = os.path.split(path)
        by_folder[folder][name] = len(by_folder[folder])
    found = VideoFiles(wanted=sum(map(len, by_folder.values())))
    done = 0
    for folder, names in by_folder.items():
        entries = _listed(folder, names)
        for name in names:
            _look(f"{folder}/{name}", entries.get(name), found, sizes)
            done += 1
            progress(done, found.wanted)
    return found


def _listed(folder: str, wanted: Collection[str]) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries if entry.name in wanted}
    except OSError:
        return {}


def _look(path: str, entry: os.DirEntry[str] | None, found: VideoFiles, sizes: bool) -> None:
    try:
        if entry is None:
            found.missing.append(path)
        elif not sizes:
            found.there += 1
        elif entry.is_dir():
            _look_inside(path, found)
        else:
            size = entry.stat().st_size
            found.bytes += size
            if size:
                found.there += 1
            else:
                found.empty.append(path)
    except OSError:  # a link that leads nowhere, or a folder that may not be read
        found.missing.append(path)


def _look_inside(path: str, found: VideoFiles) -> None:
    """Count the images of a folder of frames, one look at each."""
    from tempeval.video.folder import IMAGE_SUFFIXES

    names, size = [], 0
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and name[0] != ".":
                names.append(name)
                size += entry.stat().st_size
    if not names:
        found.empty.append(path)
        return
    found.there += 1
    found.bytes += size
    number = first_gap(names)
    if number is not None:
        found.gaps[path] = number


def first_gap(names: Iterable[str]) -> int | None:
    """Return the first number that is missing from the names of a folder's frames.

    Frames are numbered from 0 or 1 on. Folders that number them with a stride (exports of every
    20th frame of a scan) leave out frames of their own choice, so nothing is missed there.

    Args:
        names: file names with their number, such as `00001.jpg`.
    """
    numbers = set()
    for name in names:
        stem = name[: name.rfind(".")]
        if stem.isdecimal():
            numbers.add(int(stem))
        elif match := _LAST_NUMBER.search(stem):
            numbers.add(int(match[1]))
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

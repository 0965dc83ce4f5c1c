"""Where the videos of a benchmark lie: one listing per folder instead of one look per item."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tempeval.benchmarks.base import BadData

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Containers that official archives and common conversions of them use; the first is expected.
VIDEO_EXTENSIONS = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif")
#: In place of extensions: the entries are folders of frames.
FRAME_FOLDERS = ("",)


class VideoIndex:
    """The videos under some folders of a benchmark. No video is opened, and no item is looked up.

    Args:
        root: the benchmark's folder.
        *folders: official places of the videos relative to it (`""` or `"."` for itself), the first
            one expected. Where two of them hold a name, the earlier one counts.
        extensions: accepted endings with their dot, the first one expected. `""` accepts folders
            (of frames) and files without an ending.
        depth: how many levels of folders are listed: 1 for the files of the folders themselves, 2
            for those of their sub-folders too. Folders that are entries are not entered.
    """

    def __init__(
        self,
        root: Path,
        *folders: str,
        extensions: tuple[str, ...] = VIDEO_EXTENSIONS,
        depth: int = 1,
    ) -> None:
        if not folders or not extensions:
            raise ValueError("a video index needs at least one folder and one extension")
        self.root, self.folders = root, folders
        self.extensions, self.depth = extensions, depth

    def find(self, name: str) -> Path | None:
        """Return an existing video, or None.

        Args:
            name: its file name, its stem, or its path relative to one of the folders.

        Raises:
            BadData: if the name leads out of the folders.
        """
        safe_name(name, f"a video under {self.root}")
        for candidate in self._names(name):
            if candidate in self._found:
                return Path(self._found[candidate])
        return None

    def path_of(self, name: str) -> Path:
        """Return an existing video, or the path where it should be.

        Args:
            name: as for `find`.

        Raises:
            BadData: if the name leads out of the folders.
        """
        return self.find(name) or self._home / (
            name if _split(name)[1] in self.extensions else name + self.extensions[0]
        )

    def __len__(self) -> int:
        """Return how many videos there are, the same name in two places counted once."""
        return len({path for name, path in self._found.items() if "/" not in name})

    @cached_property
    def _found(self) -> dict[str, str]:
        """Paths by file name and, below the first level, also by relative path."""
        found: dict[str, str] = {}
        for folder in self.folders:
            for relative, path in self._listed(str(self.root / folder), "", self.depth):
                found.setdefault(relative, path)
                found.setdefault(relative.rpartition("/")[2], path)
        return found

    @cached_property
    def _home(self) -> Path:
        """The first of the folders that holds a video, else that exists, else the first.

        The benchmark's own folder exists always, so it counts only where it holds videos.
        """
        places = [self.root / folder for folder in self.folders]
        for place in places:
            if next(self._listed(str(place), "", self.depth), None) is not None:
                return place
        return next((p for p in places if p != self.root and p.is_dir()), places[0])

    def _names(self, name: str) -> list[str]:
        """Return the file names that stand for a name, the given or the expected one first."""
        stem, ending = _split(name)
        if ending and ending in self.extensions:
            return [stem + ending, *(stem + other for other in self.extensions if other != ending)]
        return [name + other for other in self.extensions]

    def _listed(self, top: str, above: str, depth: int) -> Iterator[tuple[str, str]]:
        """Yield `(path relative to the folder, path)`, in order of name within each level."""
        try:
            with os.scandir(top) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        below = []
        for entry in listed:
            stem, ending = _split(entry.name)
            if entry.is_dir():
                if "" in self.extensions:
                    yield above + entry.name, entry.path
                else:
                    below.append(entry)
            elif ending in self.extensions:
                yield above + stem + ending, entry.path
        if depth > 1:
            for entry in below:
                yield from self._listed(entry.path, f"{above}{entry.name}/", depth - 1)


def safe_name(name: object, where: str) -> str:
    """Return a name out of an annotation that stays below the folder it is put under.

    Args:
        name: a file name, an id, or a relative path with `/`.
        where: file and item, for the message.

    Raises:
        BadData: if it is no text, empty, absolute, or leads out of the folder.
    """
    if isinstance(name, str) and name and "\\" not in name and "\0" not in name:
        path = PurePosixPath(name)
        if not path.is_absolute() and ".." not in path.parts and path.parts:
            return name
    raise BadData(
        f"{where} has the name {name!r}; expected a file name or a relative path that stays "
        "inside the benchmark's folder"
    )


def _split(name: str) -> tuple[str, str]:
    """Return stem and lower-case ending, as `os.path.splitext` does, which is per item here."""
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending.lower()) if stem and "/" not in ending else (name, "")

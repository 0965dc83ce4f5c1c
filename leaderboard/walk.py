"""Walk folders, through links too, and report what cannot be read instead of passing over it."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder, or a file in it, that cannot be read.

    Attributes:
        folder: path of the folder.
        file: name of the file; empty for the folder itself.
        reason: what is wrong.
        action: what to do about it.
    """

    folder: Path
    file: str
    reason: str
    action: str


def walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[Path | Unreadable]:
    """Give the wanted files below a folder.

    Links to folders are followed after everything that needs none, so that a folder is reached
    without a link where that is possible. A folder is read once, whatever ways lead to it, and a
    link to a folder that it lies in is a loop and not followed.

    Args:
        root: the folder, without links.
        wanted: tells whether a file of this name is asked for.

    Returns:
        Paths below `root`, and what cannot be read: folders, and wanted names that are no file.
    """
    seen: set[tuple[int, int]] = set()
    waiting, links = deque([root]), deque[Path]()
    while waiting or links:
        folder = waiting.popleft() if waiting else links.popleft()
        try:
            place = folder.stat()
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(folder) as listed:
                items = sorted(listed, key=lambda item: item.name)
        except OSError as error:
            reason = f"the folder cannot be read ({error.strerror})"
            yield Unreadable(folder, "", reason, "Check its permissions")
            continue
        for item in items:
            path = folder / item.name
            if wanted(item.name):
                yield _no_file(path) or path
            if item.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif item.is_symlink() and _is_folder(path):
                links.append(path)


def _is_folder(link: Path) -> bool:
    """Tell whether a link leads to a folder that it does not lie in."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # to nothing, or to itself
        return False
    return target.is_dir() and not link.parent.resolve().is_relative_to(target)


def _no_file(path: Path) -> Unreadable | None:
    """Say what stands where a file is expected; None where it is one."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = f"{path.name} cannot be read ({error.strerror})"
        action = "Check its permissions"
        if path.is_symlink():
            reason = f"{path.name} is a link to {str(path.readlink())!r} ({error.strerror})"
            action = "Fetch what it links to, or delete the link"
        return Unreadable(path.parent, path.name, reason, action)
    if stat.S_ISREG(mode):
        return None
    what = "a folder, not a file" if stat.S_ISDIR(mode) else "no regular file"
    reason = f"{path.name} is {what}"
    return Unreadable(path.parent, path.name, reason, "Rerun the run, or delete it")

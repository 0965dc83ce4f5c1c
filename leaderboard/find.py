"""Find the files of runs below the arguments, each once, and name them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.leaderboard.errors import RunsNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RECORD = "run.json"
# What lmms-eval calls its results: the time, in the time zone it was told, and this ending.
_RESULTS = re.compile(r"(\d{8}_\d{6})_results\.json")


def find(paths: Sequence[Path]) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]]:
    """Find run records, and results of lmms-eval in folders without a record.

    Args:
        paths: folders, searched recursively, or single `run.json` and `*_results.json` files.

    Returns:
        Names and resolved paths, sorted by name: of the records, and of the stock results. A name
        is the folder relative to what all have in common, for stock results with the time in the
        file's name. A file that is found twice, also by another spelling of its path, is there
        once.

    Raises:
        RunsNotFound: a path does not exist, or there is neither kind of file below it.
    """
    found: dict[tuple[int, int, str], Path] = {}
    for path in paths:
        below = list(_below(path))
        if not below:
            raise RunsNotFound(path, f"no {RECORD} and no *_results.json in it or below it")
        for file in below:
            found.setdefault(_place(file), file)
    if not found:
        raise RunsNotFound(Path(), "no run was given")
    records = sorted(path for path in found.values() if path.name == RECORD)
    recorded = {path.parent for path in records}
    stock = sorted(
        path
        for path in found.values()
        if path.name != RECORD and path.parent not in recorded and not _has_record(path.parent)
    )
    common = _common({path.parent for path in (*records, *stock)})
    named = [(_relative(path.parent, common), path) for path in records]
    plain = [(_joined(_relative(path.parent, common), path), path) for path in stock]
    return sorted(named, key=_order), sorted(plain, key=_order)


def _below(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise RunsNotFound(path, "no such file or folder")
    if not path.is_dir():
        if path.name != RECORD and not _RESULTS.fullmatch(path.name):
            raise RunsNotFound(path, f"neither a folder nor a {RECORD} nor a *_results.json")
        beside = path.parent / RECORD
        yield (beside if beside.is_file() else path).resolve()
        return
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            if (name == RECORD or _RESULTS.fullmatch(name)) and file.is_file():
                yield file.resolve()


def _place(file: Path) -> tuple[int, int, str]:
    """Identify a file by its folder on the disk, whatever way leads there, and its name."""
    folder = file.parent.stat()
    return folder.st_dev, folder.st_ino, file.name


def _has_record(folder: Path) -> bool:
    return (folder / RECORD).is_file()


def _common(folders: Iterable[Path]) -> Path:
    folders = set(folders)
    common = Path(os.path.commonpath(folders)) if folders else Path()
    # With one run only, or a run inside a run, the folder itself is a name.
    return common.parent if common in folders else common


def _relative(folder: Path, common: Path) -> str:
    return folder.relative_to(common).as_posix()


def _joined(folder: str, path: Path) -> str:
    return f"{folder}/{path.name.removesuffix('_results.json')}"


def _order(named: tuple[str, Path]) -> tuple[str, str]:
    """Sort names that differ in case only beside each other, and always the same way."""
    return named[0].casefold(), named[0]

"""Find the files of runs below the arguments, each once, and name them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.leaderboard.errors import RunsNotFound
from tempeval.leaderboard.walk import Unreadable, walk
from tempeval.run.record import FILE_NAME, BadRecord, parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# What lmms-eval calls its results: the time, in the time zone it was told, and this ending. The
# record of a run of its own command has that time, too: several runs may share a folder.
_RESULTS = re.compile(r"(\d{8}_\d{6})_results\.json")
_RECORDS = re.compile(rf"(\d{{8}}_\d{{6}}_)?{re.escape(FILE_NAME)}")
_ENDINGS = re.compile(rf"_results\.json$|_{re.escape(FILE_NAME)}$")


@dataclass(frozen=True, slots=True)
class Odd:
    """What is found where a run is expected and cannot be read as one.

    Attributes:
        name: the folder, as a run there would be named.
        file: `run.json`, a results file, or empty for the folder itself.
        reason: why it cannot be read.
        action: what to do about it.
    """

    name: str
    file: str
    reason: str
    action: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is below the arguments, each sorted by name.

    Attributes:
        records: names and paths of run records.
        results: names and paths of lmms-eval's results that no record beside them is about.
        odd: what cannot be read.
    """

    records: tuple[tuple[str, Path], ...]
    results: tuple[tuple[str, Path], ...]
    odd: tuple[Odd, ...]


def find(paths: Sequence[Path]) -> Found:
    """Find run records, and results of lmms-eval that belong to no record.

    Links to folders are followed.

    Args:
        paths: folders, searched recursively, or single `run.json` and `*_results.json` files.

    Returns:
        The files, and what stands in their place. A name is the folder relative to what all have
        in common, for runs of lmms-eval with the time in the file's name. A file that is found
        twice, also by another spelling of its path, is there once, by a way without links if there
        is one.

    Raises:
        RunsNotFound: a path does not exist or cannot be read, or there is neither kind of file
            below it.
    """
    files: dict[tuple[int, int, str], Path] = {}
    problems: dict[tuple[Path, str], tuple[str, str]] = {}
    for path in paths:
        below = list(_below(path))
        if not below:
            raise RunsNotFound(path, f"no {FILE_NAME} and no *_results.json in it or below it")
        for found in below:
            if isinstance(found, Unreadable):
                problems[found.folder, found.file] = (found.reason, found.action)
                continue
            place = _place(found)
            files[place] = min(files.get(place, found), found, key=_linked)
    if not files and not problems:
        raise RunsNotFound(Path(), "no run was given")
    records = sorted(path for path in files.values() if is_record(path))
    stock = sorted(p for p in files.values() if not is_record(p) and _owner(p) is None)
    folders = {path.parent for path in (*records, *stock)}
    common = _common(folders | {folder for folder, _ in problems})
    return Found(
        tuple(sorted(((_joined(_relative(p.parent, common), p), p) for p in records), key=_order)),
        tuple(sorted(((_joined(_relative(p.parent, common), p), p) for p in stock), key=_order)),
        tuple(
            Odd(_relative(folder, common), file, *why)
            for (folder, file), why in sorted(problems.items())
        ),
    )


def _below(path: Path) -> Iterator[Path | Unreadable]:
    if not path.exists():
        raise RunsNotFound(path, "no such file or folder")
    if not path.is_dir():
        if not _wanted(path.name):
            raise RunsNotFound(path, f"neither a folder nor a {FILE_NAME} nor a *_results.json")
        file = path.parent.resolve() / path.name
        yield _owner(file) or file
        return
    root = path.resolve()
    for found in walk(root, _wanted):
        if isinstance(found, Unreadable) and found.folder == root and not found.file:
            raise RunsNotFound(path, found.reason)
        yield found


def is_record(path: Path) -> bool:
    """Return True if a file is named as the record of a run."""
    return _RECORDS.fullmatch(path.name) is not None


def _wanted(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_RECORDS, _RESULTS))


def _place(file: Path) -> tuple[int, int, str]:
    """Identify a file by its folder on the disk, whatever way leads there, and its name."""
    folder = file.parent.stat()
    return folder.st_dev, folder.st_ino, file.name


def _linked(file: Path) -> tuple[bool, Path]:
    """Sort ways to one folder: those without links first."""
    return file.parent.resolve() != file.parent, file


def _owner(results: Path) -> Path | None:
    """Return the record of the run that a results file is of; None for none.

    A `run.json` names it, or samples files of its time. One that names neither is of a run that did
    not get so far, or cannot be read: it is listed itself, and what it left is its own.
    """
    if is_record(results):
        return None
    own = results.with_name(_ENDINGS.sub(f"_{FILE_NAME}", results.name))
    if own.is_file():
        return own
    record = results.with_name(FILE_NAME)
    if not record.is_file():
        return None
    try:
        raw = parse_object(record, record.read_bytes(), "")
    except (BadRecord, OSError):
        return record
    tasks = raw.get("tasks")
    parts = tasks.values() if isinstance(tasks, dict) else ()
    names = [part.get("samples_file") for part in parts if isinstance(part, dict)]
    known = [name for name in (raw.get("results_file"), *names) if isinstance(name, str)]
    time = results.name.removesuffix("_results.json")
    ours = not known or any(name.startswith(f"{time}_") for name in known)
    return record if ours else None


def _common(folders: Iterable[Path]) -> Path:
    folders = set(folders)
    common = Path(os.path.commonpath(folders)) if folders else Path()
    # With one run only, or a run inside a run, the folder itself is a name.
    return common.parent if common in folders else common


def _relative(folder: Path, common: Path) -> str:
    return folder.relative_to(common).as_posix()


def _joined(folder: str, path: Path) -> str:
    """Name a run by its folder, and by the time where several may be in one."""
    return folder if path.name == FILE_NAME else f"{folder}/{_ENDINGS.sub('', path.name)}"


def _order(named: tuple[str, Path]) -> tuple[str, str]:
    """Sort names that differ in case only beside each other, and always the same way."""
    return named[0].casefold(), named[0]

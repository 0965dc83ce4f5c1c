"""Official annotation files: where they lie, and what is in them, with every fault named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.base import BadData, MissingData

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

#: Folders of a benchmark that its annotation files are put in, in practice.
PLACES = ("", "annotations", "labels")


def annotation(root: Path, *names: str, places: Sequence[str] = PLACES) -> Path:
    """Return the first annotation file that exists.

    Args:
        root: the benchmark's folder.
        *names: its official names, the first one preferred.
        places: folders under `root` to look in, the first one preferred.

    Raises:
        MissingData: if there is none.
    """
    for name in names:
        for place in places:
            if (root / place / name).is_file():
                return root / place / name
    below = ", ".join(f"{place}/" for place in places if place)
    raise MissingData(f"no {' or '.join(names)} in {root} (looked in {below} below it as well)")


def read_text(path: Path) -> str:
    """Return the text of an annotation file, without a byte order mark.

    Raises:
        BadData: if it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read as UTF-8 text: {error}") from error


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return `(number, line)` of the lines that are not blank, without blanks around them.

    Raises:
        BadData: if the file cannot be read as UTF-8.
    """
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1))
    return [(number, line) for number, line in lines if line]


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        BadData: if it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise BadData(f"{path} is no JSON: {error}") from error


def read_items(
    path: Path, keys: Collection[str], within: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(where, item)` of a JSON list of objects.

    Args:
        path: the file.
        keys: what every item must have.
        within: key of the list in an object that holds it; None where the file is the list.

    Raises:
        BadData: if it is no such list, or an item is no object or lacks a key.
    """
    found = read_json(path)
    if within is not None:
        found = found.get(within) if isinstance(found, dict) else None
    if not isinstance(found, list):
        place = "" if within is None else f" as {within!r}"
        kind = type(found).__name__
        raise BadData(f"{path} holds a {kind}{place}; expected a list of objects")
    for number, item in enumerate(found):
        where = f"{path}, item {number}"
        if not isinstance(item, dict):
            raise BadData(f"{where} is a {type(item).__name__}; expected an object")
        missing = [key for key in keys if key not in item]
        if missing:
            raise BadData(f"{where} has no {', '.join(missing)}")
        yield where, item

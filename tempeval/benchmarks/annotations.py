"""Official annotation files: where they lie, and what is in them, with every fault named."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from tempeval.benchmarks.base import BadData, MissingData

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
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
        BadData: if it is no JSON, or not one that every reader reads alike (see `parse_json`).
    """
    try:
        return parse_json(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path} is no JSON that can be used: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text holds.

    Of a key that an object has twice, Python's reader drops the first value without a word, and
    it takes numbers that JSON does not have; both would drop or invent questions and answers.

    Raises:
        ValueError: if it is no JSON, an object has a key twice, or a number is not finite.
        RecursionError: if it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"the key {_repeated(name for name, _ in pairs)!r} occurs twice")
    return found


def _repeated(names: Iterable[str]) -> str:
    """Return the first name that was there before."""
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number; accepted: finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_number(text)
    return value


def read_table(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `(where, row)` of a CSV file with a header; blank lines are left out.

    Args:
        path: the file.
        columns: what it must have; others may be there too, in any order.

    Raises:
        BadData: if a column is missing or is there twice, or a row lacks one of `columns` or has
            more values than there are columns.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise BadData(
                f"{path} has no column {', '.join(missing)}: it has {header}; expected "
                f"{', '.join(columns)}"
            )
        if len(set(header)) != len(header):
            raise BadData(f"{path} has the column {_repeated(header)!r} twice")
        last = max(header.index(name) for name in columns)
        for row in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if len(row) <= last:
                raise BadData(f"{where} has too few columns: {row}; expected {header}")
            # A comma without its quotes moves every value behind it by one.
            if any(value.strip() for value in row[len(header) :]):
                raise BadData(f"{where} has too many columns: {row}; expected {header}")
            yield where, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise BadData(f"{path}, line {reader.line_num}: {error}") from error


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

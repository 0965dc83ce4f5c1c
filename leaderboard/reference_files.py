"""Files of published numbers: their schema, read into frozen dataclasses.

One YAML file per paper, its tables laid out as the paper prints them, so that they can be compared
by eye. Values shared by a table's rows stand at the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tempeval.leaderboard.errors import LeaderboardError

if TYPE_CHECKING:
    from collections.abc import Mapping

# How a number is known: the tag in the project's notes on the papers -> what a reader is told.
SOURCES = {
    "code": "official repository (README)",
    "text": "the paper's text",
    "paper2": "re-published in another paper",
    "3P": "third-party notes",
    "calc": "computed from published sizes",
}
# Tasks that a published number may correspond to. Parts of them are named TASK_part.
TASKS = (
    *(
        f"tempeval_{name}_{kind}"
        for name in ("jester", "ssv2", "kinetics400", "kinetics700", "breakfast")
        for kind in ("choice", "list", "mcq")
    ),
    "tempeval_mvbench",
    "tempeval_tempcompass",
    "tempeval_egoschema",
    "tempeval_egoschema_subset",
    "tempeval_nextqa_mc",
    "tempeval_nextqa_oe",
    "tempeval_music_avqa",
    "tempeval_avqa",
    "tempeval_scanqa",
    "tempeval_sqa3d",
)
PERCENT = "percent"

_TEXT, _NONE = (str,), (str, type(None))
_PAPER: dict[str, tuple[type, ...]] = {"title": _TEXT, "arxiv": _NONE, "venue": _NONE}
_FILE: dict[str, tuple[type, ...]] = {"paper": (dict,), "tables": (list,)}
_TABLE: dict[str, tuple[type, ...]] = {
    "table": _TEXT,
    "source": _TEXT,
    "columns": (list,),
    "rows": (list,),
}
_COLUMN: dict[str, tuple[type, ...]] = {"benchmark": _TEXT, "metric": _TEXT}
_ROW: dict[str, tuple[type, ...]] = {"method": _TEXT, "values": (list,)}
_LEFT_OUT: dict[str, tuple[type, ...]] = {"what": _TEXT, "why": _TEXT}
# Keys that may be missing. Those of a row replace the table's.
_SHARED: dict[str, tuple[type, ...]] = {
    "model": _NONE,
    "frames": (int, type(None)),
    "note": _NONE,
}
_COLUMN_EXTRA: dict[str, tuple[type, ...]] = {"split": _NONE, "unit": _TEXT, "tasks": (list,)}


class BadReference(LeaderboardError):
    """A file of published numbers that does not follow its schema.

    Args:
        file: its name.
        place: where in it.
        reason: what is wrong, with the value received and what is accepted.
    """

    def __init__(self, file: str, place: str, reason: str) -> None:
        self.file, self.place, self.reason = file, place, reason
        where = f"{file}: {place}" if place else file
        super().__init__(f"{where}: {reason}. Correct the file, or reinstall tempeval")


@dataclass(frozen=True, slots=True)
class Reference:
    """One published number.

    Attributes:
        file: the data file without suffix, which names the method it is about (`pas`).
        method: the row as published.
        value: in `unit`.
        unit: "percent" unless said otherwise.
        metric: as published.
        benchmark: as published.
        tasks: names in TASKS that measure the same benchmark; more than one where the paper does
            not say which protocol or split it used. Empty where there is none.
        split: None where not stated.
        model: base model; None where not stated or the row is a model of its own.
        frames: per video; None where not stated.
        table: where it is printed.
        paper: title of the paper or project whose table it is.
        arxiv: its arXiv id.
        venue: where it was published.
        source: a key of SOURCES.
        note: what a reader must know; None for nothing.
    """

    file: str
    method: str
    value: float
    unit: str
    metric: str
    benchmark: str
    tasks: tuple[str, ...]
    split: str | None
    model: str | None
    frames: int | None
    table: str
    paper: str
    arxiv: str | None
    venue: str | None
    source: str
    note: str | None


def parse_references(file: str, text: str) -> list[Reference]:
    """Parse and check one file.

    Args:
        file: its name, for messages and for `Reference.file`.
        text: its contents; YAML without tags of its own.

    Returns:
        One entry per number; null cells ("not known") give none.

    Raises:
        BadReference: not YAML, a key missing, unknown or of a wrong type, a row with another
            number of values than columns, a value that is no finite number, an unknown source or
            task, or the same number twice.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise BadReference(file, place, f"not YAML that may be loaded ({problem})") from None
    _check(file, "", raw, _FILE, {"left_out": (list,)})
    _check(file, "paper", raw["paper"], _PAPER, {})
    for i, item in enumerate(raw.get("left_out", [])):
        _check(file, f"left_out {i + 1}", item, _LEFT_OUT, {})
    found: list[Reference] = []
    for i, table in enumerate(raw["tables"]):
        _check(file, f"table {i + 1}", table, _TABLE, {**_SHARED, "paper": (dict,)})
        found += _table(file, f"table {i + 1} ({table['table']})", raw["paper"], table)
    seen: set[tuple[object, ...]] = set()
    for number in found:
        row = (number.table, number.method, number.model, number.frames)
        column = (number.benchmark, number.metric, number.split)
        if (*row, *column) in seen:
            reason = f"two values for {number.method!r}, {number.benchmark}, {number.metric}"
            raise BadReference(file, number.table, reason)
        seen.add((*row, *column))
    return found


def _table(
    file: str, place: str, paper: Mapping[str, Any], table: Mapping[str, Any]
) -> list[Reference]:
    """Check a table and give its numbers."""
    paper = table.get("paper", paper)
    _check(file, f"{place}, paper", paper, _PAPER, {})
    if table["source"] not in SOURCES:
        known = ", ".join(SOURCES)
        raise BadReference(file, place, f"source {table['source']!r} is none of {known}")
    for i, column in enumerate(table["columns"]):
        _check(file, f"{place}, column {i + 1}", column, _COLUMN, _COLUMN_EXTRA)
        for task in column.get("tasks", []):
            if task not in TASKS:
                reason = f"task {task!r} is none of {', '.join(TASKS)}"
                raise BadReference(file, f"{place}, column {i + 1}", reason)
    found = []
    for i, row in enumerate(table["rows"]):
        where = f"{place}, row {i + 1}"
        _check(file, where, row, _ROW, _SHARED)
        if len(row["values"]) != len(table["columns"]):
            reason = f"{len(row['values'])} values for {len(table['columns'])} columns"
            raise BadReference(file, where, reason)
        shared = {key: row.get(key, table.get(key)) for key in _SHARED}
        notes = [note for note in (table.get("note"), row.get("note")) if note]
        shared["note"] = "; ".join(notes) or None
        for column, value in zip(table["columns"], row["values"], strict=True):
            if value is None:
                continue
            found.append(
                Reference(
                    file=file.removesuffix(".yaml"),
                    method=row["method"],
                    value=_number(file, where, value),
                    unit=column.get("unit", PERCENT),
                    metric=column["metric"],
                    benchmark=column["benchmark"],
                    tasks=tuple(column.get("tasks", [])),
                    split=column.get("split"),
                    table=table["table"],
                    paper=paper["title"],
                    arxiv=paper["arxiv"],
                    venue=paper["venue"],
                    source=table["source"],
                    **shared,
                )
            )
        if all(value is None for value in row["values"]):
            raise BadReference(file, where, "no value; leave the row out")
    return found


def _number(file: str, place: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadReference(file, place, f"value {value!r} is not a finite number or null")
    return float(value)


def _check(
    file: str,
    place: str,
    raw: object,
    needed: Mapping[str, tuple[type, ...]],
    extra: Mapping[str, tuple[type, ...]],
) -> None:
    """Raise BadReference unless `raw` is a mapping with the needed keys and no unknown ones."""
    if not isinstance(raw, dict):
        raise BadReference(file, place, f"{type(raw).__name__}, not a mapping")
    if missing := sorted(set(needed) - set(raw)):
        raise BadReference(file, place, f"key {missing[0]!r} is missing")
    known = {**needed, **extra}
    for key, value in raw.items():
        if key not in known:
            raise BadReference(file, place, f"key {key!r} is none of {', '.join(sorted(known))}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in known[key])
            reason = f"{key} is {value!r} ({type(value).__name__}), not {wanted}"
            raise BadReference(file, place, reason)

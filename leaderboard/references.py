"""Published numbers, shown beside measured rows in a list of their own and never ranked with them.

They are data: `reference/*.yaml`, one file per paper (`reference_files` has the schema).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from tempeval.leaderboard.reference_files import (
    PERCENT,
    SOURCES,
    TASKS,
    BadReference,
    Reference,
    parse_references,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tempeval.leaderboard import schema

__all__ = [
    "PERCENT",
    "SOURCES",
    "TASKS",
    "BadReference",
    "Reference",
    "load_references",
    "parse_references",
    "published_rows",
    "references_for",
    "task_of",
]


@cache
def load_references() -> tuple[Reference, ...]:
    """Read all published numbers that ship with the package, files by name, in printed order.

    Raises:
        BadReference: a file does not follow the schema.
    """
    folder = files("tempeval.leaderboard") / "reference"
    found: list[Reference] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".yaml"):
            found += parse_references(path.name, path.read_text(encoding="utf-8"))
    return tuple(found)


def references_for(
    tasks: Iterable[str] = (), benchmarks: Iterable[str] = ()
) -> tuple[Reference, ...]:
    """Return the published numbers about any of the tasks or benchmarks, in the order of loading.

    Args:
        tasks: task names; a part such as `tempeval_mvbench_state_change` stands for its task.
        benchmarks: benchmarks as published, in any case.

    Raises:
        BadReference: as of `load_references`.
    """
    wanted = {task_of(name) for name in tasks} - {None}
    named = {name.casefold() for name in benchmarks}
    return tuple(
        reference
        for reference in load_references()
        if wanted.intersection(reference.tasks) or reference.benchmark.casefold() in named
    )


def published_rows(tasks: Iterable[str]) -> list[schema.Reference]:
    """Return the published numbers about tasks, as the JSON document has them.

    Args:
        tasks: names of the tasks of the tables.

    Raises:
        BadReference: as of `load_references`.
    """
    return [_row(reference) for reference in references_for(tasks)]


def _row(found: Reference) -> schema.Reference:
    unit = "" if found.unit == PERCENT else f" ({found.unit})"
    known = {
        "paper": found.paper,
        "venue": found.venue,
        "url": f"https://arxiv.org/abs/{found.arxiv}" if found.arxiv else None,
        "evidence": SOURCES[found.source],
        "tasks": ", ".join(found.tasks),
        "note": found.note,
    }
    return {
        "value": found.value,
        "metric": f"{found.metric}{unit}",
        "task": f"{found.benchmark} ({found.split})" if found.split else found.benchmark,
        "method": found.method,
        "model": found.model or "not stated",
        "frames": found.frames,
        "table": found.table,
        "source": f"{found.paper}: {SOURCES[found.source]}",
        "details": {name: value for name, value in known.items() if value},
    }


def task_of(name: str) -> str | None:
    """Return the name in TASKS that a task is or is a part of, the longest; None for none."""
    fitting = [task for task in TASKS if name == task or name.startswith(f"{task}_")]
    return max(fitting, key=len, default=None)

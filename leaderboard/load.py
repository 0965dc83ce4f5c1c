"""Find run records and read them with their samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.leaderboard.errors import BadRecord, RunsNotFound
from tempeval.leaderboard.records import Entry, Refusal, Run, parse_head, parse_run
from tempeval.leaderboard.samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.records import TaskRecord

RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that could be read, and why the rest could not."""

    runs: tuple[Run, ...]
    entries: tuple[Entry, ...]
    refusals: tuple[Refusal, ...]


def load(paths: Sequence[Path]) -> Loaded:
    """Read all runs below the given paths.

    Args:
        paths: run folders (searched recursively) or `run.json` files; a run found twice is
            read once.

    Returns:
        Runs and their tasks sorted by run name, whatever the order of the arguments. A record
        that cannot be used becomes a refusal, so that one bad run does not hide the others.

    Raises:
        RunsNotFound: a path does not exist, or there is no run.json below it.
    """
    runs: list[Run] = []
    entries: list[Entry] = []
    refusals: list[Refusal] = []
    for name, path in _named(_find(paths)):
        try:
            raw = parse_head(path, _bytes(path))
            if raw["status"] != "complete":
                refusals.append(_unfinished(name, raw["status"], raw["error"], raw))
                continue
            run = parse_run(path, name, raw)
        except BadRecord as error:
            refusals.append(_unreadable(name, "", (), error))
            continue
        runs.append(run)
        for task in run.tasks:
            try:
                entries.append(Entry(run, task, read_samples(_samples_path(path, task), task)))
            except BadRecord as error:
                refusals.append(_unreadable(name, run.label, (task.name,), error))
    return Loaded(tuple(runs), tuple(entries), tuple(refusals))


def _find(paths: Sequence[Path]) -> list[Path]:
    """Give the run records below the arguments, resolved, each once."""
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise RunsNotFound(path, "no such file or folder")
        if path.is_dir():
            records = {record.resolve() for record in path.rglob(RECORD) if record.is_file()}
            if not records:
                raise RunsNotFound(path, f"no {RECORD} in it or below it")
            found |= records
        elif path.name == RECORD:
            found.add(path.resolve())
        else:
            raise RunsNotFound(path, f"neither a folder nor a {RECORD}")
    if not found:
        raise RunsNotFound(Path(), "no run was given")
    return sorted(found)


def _named(records: list[Path]) -> list[tuple[str, Path]]:
    """Name each run by its folder relative to what all of them have in common."""
    folders = [record.parent for record in records]
    common = Path(os.path.commonpath(folders))
    if common in folders:  # one run only, or a run inside a run
        common = common.parent
    pairs = zip(folders, records, strict=True)
    return sorted((folder.relative_to(common).as_posix(), record) for folder, record in pairs)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise BadRecord(path, None, reason, "Check its permissions") from None


def _samples_path(record: Path, task: TaskRecord) -> Path:
    """Resolve a task's samples file; it must lie in the run's folder."""
    path = (record.parent / task.samples_file).resolve()
    if not path.is_relative_to(record.parent):
        reason = f"samples_file {task.samples_file!r} of {task.name} is outside the run folder"
        raise BadRecord(record, None, reason, "Copy the samples file beside run.json")
    return path


def _unreadable(name: str, method: str, tasks: tuple[str, ...], error: BadRecord) -> Refusal:
    where = error.path.name if error.line is None else f"{error.path.name}:{error.line}"
    return Refusal(
        run=name,
        method=method,
        tasks=tasks,
        field="run.json" if error.path.name == RECORD else "samples",
        value=f"{name}/{where}",
        other="",
        reason=error.reason,
        action=error.action,
    )


def _unfinished(name: str, status: str, error: str | None, raw: dict[str, object]) -> Refusal:
    tail = f": {' '.join(error.split())}" if error else ""
    return Refusal(
        run=name,
        method=str(raw.get("method_label") or raw["method"]),
        tasks=(),
        field="status",
        value=status,
        other="complete",
        reason=f"the run is {status}{tail}",
        action="Resume it with the same command; only complete runs are ranked",
    )

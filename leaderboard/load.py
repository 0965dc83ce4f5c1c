"""Read what is found: run records with their samples, and runs of lmms-eval without a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from tempeval.leaderboard.eligible import REMEDY, task_refusal
from tempeval.leaderboard.find import find, is_record
from tempeval.leaderboard.records import Entry, Refusal, Run, Source
from tempeval.leaderboard.run_record import parse_run
from tempeval.leaderboard.samples import read_all
from tempeval.leaderboard.stock import read_stock
from tempeval.leaderboard.text import flags
from tempeval.leaderboard.unscored import UNSCORED
from tempeval.run.record import BadRecord, parse_head

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tempeval.leaderboard.find import Odd
    from tempeval.leaderboard.records import RunTask
    from tempeval.run.record import RecordHead


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that could be read, and why the rest could not.

    Attributes:
        runs: complete runs, and those of which some tasks are.
        entries: their complete tasks with samples.
        refusals: runs and tasks that cannot be used, and stock runs.
        sources: all runs whose first file could be read, complete or not, by name.
    """

    runs: tuple[Run, ...]
    entries: tuple[Entry, ...]
    refusals: tuple[Refusal, ...]
    sources: tuple[Source, ...]


def load(paths: Sequence[Path]) -> Loaded:
    """Read all runs below the given paths.

    Args:
        paths: folders (searched recursively), `run.json` files, or `*_results.json` files of
            lmms-eval; a run found twice is read once.

    Returns:
        Runs and their tasks sorted by run name, whatever the order of the arguments. A record
        that cannot be used becomes a refusal, so that one bad run does not hide the others.

    Raises:
        RunsNotFound: a path does not exist, or there is no run below it.
    """
    found = find(paths)
    runs: list[Run] = []
    refusals = [_odd(odd) for odd in found.odd]
    sources: list[Source] = []
    wanted: list[tuple[Path, Run, RunTask]] = []
    for name, path in found.records:
        try:
            head, raw = parse_head(path, _bytes(path))
            sources.append(Source(name, head.status, raw))
            left_out: dict[str, Refusal] = {}
            run = None
            partly = head.status in ("partial", "interrupted") and raw.get("tasks")
            if head.status == "complete" or partly:
                run = parse_run(path, name, raw)
                left_out = {} if head.status == "complete" else _incomplete_tasks(run)
            if run is None or (head.status != "complete" and not left_out):
                refusals.append(_unfinished(name, head))
                continue
        except BadRecord as error:
            refusals.append(_unreadable(name, "", (), error))
            continue
        runs.append(run)
        refusals += left_out.values()
        for task in run.tasks:
            if task.name in left_out:
                continue
            if task.name in UNSCORED or task.unranked:
                refusals.append(_unscored(run, task))
                continue
            try:
                wanted.append((_samples_path(path, task), run, task))
            except BadRecord as error:
                refusals.append(_unreadable(name, run.record.method_label, (task.name,), error))
    entries = []
    read = read_all([(path, task) for path, _, task in wanted])
    for (_, run, task), samples in zip(wanted, read, strict=True):
        if isinstance(samples, BadRecord):
            refusals.append(_unreadable(run.name, run.record.method_label, (task.name,), samples))
        else:
            entries.append(Entry(run, task, samples))
    for name, path in found.results:
        try:
            source, refusal = read_stock(name, path, _bytes(path))
        except BadRecord as error:
            refusals.append(_unreadable(name, "", (), error))
            continue
        sources.append(source)
        refusals.append(refusal)
    sources.sort(key=lambda source: (source.name.casefold(), source.name))
    return Loaded(tuple(runs), tuple(entries), tuple(refusals), tuple(sources))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise BadRecord(path, None, reason, "Check its permissions") from None


def _samples_path(record: Path, task: RunTask) -> Path:
    """Give a task's samples file: a name inside the run's folder, which may be a link."""
    name = task.samples_file
    parts = PurePath(name)
    if "\0" in name or parts.is_absolute() or ".." in parts.parts or not parts.parts:
        reason = f"samples_file {name!r} of {task.name} is outside the run folder"
        raise BadRecord(record, None, reason, "Copy the samples file beside run.json")
    return record.parent / parts


def _odd(odd: Odd) -> Refusal:
    return Refusal(
        run=odd.name,
        method="",
        tasks=(),
        kind="unreadable",
        field=odd.file or "folder",
        value=f"{odd.name}/{odd.file}",
        other="",
        reason=odd.reason,
        action=odd.action,
    )


def _unreadable(name: str, method: str, tasks: tuple[str, ...], error: BadRecord) -> Refusal:
    where = error.path.name if error.line is None else f"{error.path.name}:{error.line}"
    return Refusal(
        run=name,
        method=method,
        tasks=tasks,
        kind="unreadable",
        field="samples" if tasks and not is_record(error.path) else error.path.name,
        value=f"{name}/{where}",
        other="",
        reason=error.reason,
        action=error.action,
    )


def _unscored(run: Run, task: RunTask) -> Refusal:
    values = (task.score_key, "none", "one for each sample")
    own = (task.unranked, "Choose another of the task's metrics with tempeval run --metric NAME")
    return task_refusal(run, task, "unscored", *values, *UNSCORED.get(task.name, own))


def _unfinished(name: str, head: RecordHead) -> Refusal:
    tail = f": {' '.join(head.error.split())}" if head.error else ""
    return Refusal(
        run=name,
        method=head.method_label or head.method,
        tasks=(),
        kind="unfinished",
        field="status",
        value=head.status,
        other="complete",
        reason=f"the run is {head.status}{tail}",
        action="Mend what the reason names and run the same command, which goes on from there",
    )


def _incomplete_tasks(run: Run) -> dict[str, Refusal]:
    """Say which tasks keep a run from being complete; the others are ranked.

    Returns:
        Task -> why it is not ranked and what helps. Empty where the counts do not explain why the
        run is incomplete: then no task of it is trusted.
    """
    said = run.record.error
    tail = f"; the run says: {' '.join(said.split())}" if said else ""
    found: dict[str, Refusal] = {}
    for task in run.tasks:
        unanswered = task.expected - task.answered - task.failed
        if unanswered > 0:
            reason = f"{unanswered} of {task.expected} samples have no answer yet{tail}"
            values = (f"{task.answered} answered", f"{task.expected} expected")
            action = "Run the same command, which goes on where it stopped"
            found[task.name] = task_refusal(
                run, task, "unfinished", "answered", *values, reason, action
            )
        elif task.failed:
            reason = f"{task.failed} of {task.expected} samples failed{tail}"
            action = f"{REMEDY}; --max-failures of the run says how many a complete run may have"
            values = (str(task.failed), "what the run accepts")
            found[task.name] = task_refusal(
                run, task, "failures", "failed", *values, reason, action
            )
    if found:
        return found
    # Every sample was answered: what is left is damage beyond what the run accepts.
    for task in run.tasks:
        if task.videos is not None and task.videos.damaged:
            shown = f"{task.videos.damaged} of {task.videos.total} videos damaged"
            reason = f"{shown}: {flags(task.videos.flags)}{tail}"
            action = (
                "Replace the damaged videos and run the same command, or run it with a larger "
                "--max-damaged"
            )
            values = (str(task.videos.damaged), "what the run accepts")
            found[task.name] = task_refusal(
                run, task, "damaged", "damaged", *values, reason, action
            )
    return found

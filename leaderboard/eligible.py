"""Which tasks of which runs may enter a comparison at all, judged one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tempeval.leaderboard.records import Entry, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tempeval.leaderboard.records import Run, RunTask
    from tempeval.leaderboard.schema import Kind

_RERUN = "Rerun it with --overwrite"
#: What can be done about failed samples.
REMEDY = (
    "Mend what failed (put back a missing video, replace a broken one) and run the same command, "
    "which tries failed samples again; or leave missing videos out of every method with "
    "--skip-missing"
)


def split(
    entries: Iterable[Entry], *, on: str, max_failure_ratio: float
) -> tuple[list[Entry], list[Refusal]]:
    """Divide entries into those that may be compared and the reasons for the others.

    Args:
        entries: tasks of runs.
        on: the measure that is the budget.
        max_failure_ratio: most failed samples accepted, as a fraction of all, in [0, 1].

    Returns:
        The eligible entries and one refusal for each of the others, in the order received.
    """
    entries = list(entries)
    worst = _worst_scores(entries)
    good, refusals = [], []
    for entry in entries:
        refusal = _refuse(entry, on, max_failure_ratio, worst.get(entry.task.name, 0.0))
        if refusal is None:
            good.append(entry)
        else:
            refusals.append(refusal)
    return good, refusals


def _worst_scores(entries: Iterable[Entry]) -> dict[str, float]:
    """Give the smallest score of an answered question, by task, over all runs."""
    worst: dict[str, float] = {}
    for entry in entries:
        if len(scores := entry.samples.score[~entry.samples.failed]):
            least = float(scores.min())
            worst[entry.task.name] = min(least, worst.get(entry.task.name, least))
    return worst


def _refuse(entry: Entry, on: str, max_failure_ratio: float, worst: float) -> Refusal | None:
    """Give the first reason why an entry cannot be compared, None when there is none.

    `worst` is the smallest score that any run has in this task.
    """
    task, samples = entry.task, entry.samples
    lines, failed = len(samples.ids), int(samples.failed.sum())
    said = f"{task.answered} answered + {task.failed} failed"
    if lines == 0 or task.expected != lines or task.expected != task.answered + task.failed:
        reason = f"run.json says {said}, the samples file has {lines} lines"
        values = (f"{lines} lines", f"{task.expected} expected")
        return refusal(entry, "inconsistent", "samples", *values, reason)
    if failed != task.failed:
        reason = f"{failed} samples carry an error, run.json says {task.failed}"
        return refusal(entry, "inconsistent", "failed", str(failed), str(task.failed), reason)
    if failed > max_failure_ratio * lines:
        reason = f"{failed} of {lines} samples failed ({failed / lines:.1%})"
        values = (f"{failed / lines:.1%}", f"at most {max_failure_ratio:.1%}")
        return refusal(entry, "failures", "failed", *values, reason, REMEDY)
    if failed and not task.higher_is_better:
        reason = "a failed sample counts as score 0, which would be the best score of this task"
        return refusal(entry, "failures", "failed", str(failed), "0", reason, REMEDY)
    if failed and worst < 0:
        reason = (
            "a failed sample counts as score 0, which is better than other scores of this task "
            f"(down to {worst:.6g})"
        )
        return refusal(entry, "failures", "failed", str(failed), "0", reason, REMEDY)
    measured = samples.measures[on][~samples.failed]
    if odd := int((measured <= 0).sum()):
        reason = f"{odd} of {lines - failed} answered samples have a measured {on} of 0 or less"
        values = (f"{measured.min():.6g}", "above 0")
        return refusal(entry, "inconsistent", on, *values, reason)
    unknown = int(np.isnan(measured).sum())
    if unknown:
        reason = f"{unknown} of {lines - failed} answered samples have no measured {on}"
        action = "Run it with a tempeval model: its budget is measured for every sample"
        return refusal(entry, "unmeasured", on, "unknown", "measured", reason, action)
    return None


def refusal(
    entry: Entry,
    kind: Kind,
    field: str,
    value: str,
    other: str,
    reason: str,
    action: str = _RERUN,
) -> Refusal:
    """Refuse one task of one run; the arguments are those of Refusal."""
    return task_refusal(entry.run, entry.task, kind, field, value, other, reason, action)


def task_refusal(
    run: Run,
    task: RunTask,
    kind: Kind,
    field: str,
    value: str,
    other: str,
    reason: str,
    action: str,
) -> Refusal:
    """Refuse one task of one run, whose samples were not read; see `refusal`."""
    return Refusal(
        run=run.name,
        method=run.record.method_label,
        tasks=(task.name,),
        kind=kind,
        field=field,
        value=value,
        other=other,
        reason=reason,
        action=action,
    )

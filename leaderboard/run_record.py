"""A record as the leaderboard compares it: `run.json` of a run with scores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.leaderboard.records import Run, RunTask
from tempeval.run.record import BadRecord, RunRecord, check_record

if TYPE_CHECKING:
    from pathlib import Path


def parse_run(path: Path, name: str, raw: dict[str, Any]) -> Run:
    """Check all keys of a record and give it as a Run.

    Args:
        path: where it was read, for messages.
        name: the run's printed name.
        raw: the object of `parse_head`.

    Returns:
        The run, tasks sorted by name.

    Raises:
        BadRecord: a key is missing, unknown, of a wrong type or out of range; the message names it.
    """
    record = check_record(path, raw) if raw.get("tasks") else None
    if not isinstance(record, RunRecord):
        reason = "tasks is empty: there are no scores"
        raise BadRecord(path, None, reason, "Run it again, or leave it out")
    tasks = sorted(record.tasks.items())
    return Run(
        name=name,
        record=record,
        tasks=tuple(RunTask(name=task, **dict(found)) for task, found in tasks),
        frame_policy=json.dumps(_policy(record), sort_keys=True),
    )


def _policy(record: RunRecord) -> dict[str, Any]:
    """Return the frame policy with whatever else changes what the model sees."""
    policy = record.frame_policy.model_dump()
    # A budget may choose other frames for a method; what they were chosen near is shared.
    base = policy.pop("base_num_frames")
    policy["num_frames"] = policy["num_frames"] if base is None else base
    return {name: _plain(value) for name, value in (policy | record.shown).items()}


def _plain(value: Any) -> Any:
    """Write whole numbers one way: 2 frames/s are 2.0 frames/s."""
    return int(value) if isinstance(value, float) and value.is_integer() else value

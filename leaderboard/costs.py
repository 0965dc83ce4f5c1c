"""What answering cost, summed up over questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from tempeval.leaderboard.records import MEASURES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.leaderboard.records import Bools, Entry, Floats
    from tempeval.leaderboard.schema import Costs

# The memory that is needed is that of the question that needs most.
_LARGEST = ("peak_memory_bytes",)


def costs_of(entries: Sequence[Entry]) -> Costs:
    """Sum up the answered questions of tasks of one method."""
    answered = [~entry.samples.failed for entry in entries]
    pairs = list(zip(entries, answered, strict=True))
    return {
        "measures": summed_up([(entry.samples.measures, ok) for entry, ok in pairs]),
        "parse_failure_rate": known_mean([entry.samples.unparsed[ok] for entry, ok in pairs]),
        "failed": sum(int(entry.samples.failed.sum()) for entry in entries),
        "unparsed": _unparsed([entry.samples.unparsed[ok] for entry, ok in pairs]),
        "damaged": known_sum([entry.task.damaged for entry in entries]),
        "skipped": sum(entry.task.skipped for entry in entries),
        **_gaps([(entry.samples.measures, ok) for entry, ok in pairs]),
    }


def summed_up(parts: Sequence[tuple[Mapping[str, Floats], Bools]]) -> dict[str, float | None]:
    """Give each measure's mean, or largest value, over some questions.

    Args:
        parts: measures [n] by name, and which of the n questions count.

    Returns:
        Name -> value; None where a question that counts was not measured or has a value below 0,
        or where none counts.
    """
    found = {}
    for name in MEASURES:
        values = [measures[name][kept] for measures, kept in parts]
        possible = not any((part < 0).any() for part in values)
        mean = known_mean(values) if possible else None
        largest = name in _LARGEST and mean is not None
        found[name] = max(float(part.max()) for part in values if len(part)) if largest else mean
    return found


class _Gaps(TypedDict):
    unmeasured: dict[str, int]
    negative: dict[str, int]


def _gaps(parts: Sequence[tuple[Mapping[str, Floats], Bools]]) -> _Gaps:
    """Count the questions because of which a measure has no mean, by measure."""
    unmeasured, negative = {}, {}
    for name in MEASURES:
        values = np.concatenate([measures[name][kept] for measures, kept in parts])
        missing, below = int(np.isnan(values).sum()), int((values < 0).sum())
        if 0 < missing < len(values):
            unmeasured[name] = missing
        if below:
            negative[name] = below
    return {"unmeasured": unmeasured, "negative": negative}


def known_sum(counts: Sequence[int | None]) -> int | None:
    """Return the sum of counts; None when one is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _unparsed(columns: Sequence[Floats]) -> int | None:
    """Count the answers that could not be parsed; None where a line does not say."""
    values = np.concatenate(columns)
    return None if np.isnan(values).any() else int(np.count_nonzero(values))


def known_mean(columns: Sequence[Floats]) -> float | None:
    """Return the mean of all values; None when there is none, or one is not known."""
    values = np.concatenate(columns)
    known = bool(len(values)) and not np.isnan(values).any()
    return float(values.mean()) if known else None

"""What answering cost, summed up over questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    }


def summed_up(parts: Sequence[tuple[Mapping[str, Floats], Bools]]) -> dict[str, float | None]:
    """Give each measure's mean, or largest value, over some questions.

    Args:
        parts: measures [n] by name, and which of the n questions count.

    Returns:
        Name -> value; None where a question that counts was not measured, or none counts.
    """
    found = {}
    for name in MEASURES:
        values = [measures[name][kept] for measures, kept in parts]
        mean = known_mean(values)
        largest = name in _LARGEST and mean is not None
        found[name] = max(float(part.max()) for part in values if len(part)) if largest else mean
    return found


def known_mean(columns: Sequence[Floats]) -> float | None:
    """Return the mean of all values; None when there is none, or one is not known."""
    values = np.concatenate(columns)
    known = bool(len(values)) and not np.isnan(values).any()
    return float(values.mean()) if known else None

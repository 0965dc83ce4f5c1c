"""What plots of all kinds share: a drawing with its caption, and short names of methods."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.console import clean
from tempeval.leaderboard import labels
from tempeval.leaderboard.plot_frame import SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.drawing import Drawing
    from tempeval.leaderboard.schema import Point, Row

# Where there is a mean over tasks, the tasks have plots of their own up to this many: more would
# be hundreds of files that nobody looks through.
MOST_TASKS = 12
_LONGEST_NAME = 190.0  # pixels
_MOST_LEFT_OUT = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing and what is said below it."""

    drawing: Drawing
    caption: str


def short_names(points: Sequence[Point] | Sequence[Row]) -> dict[str, str]:
    """Name methods shortly, by fingerprint: without settings, where that tells them apart."""
    methods: dict[str, set[str]] = defaultdict(set)
    for point in points:
        methods[point["method"]].add(point["fingerprint"])
    names = {}
    for point in points:
        alone = len(methods[point["method"]]) == 1
        name = clean(point["method"] if alone else point["label"])
        names[point["fingerprint"]] = labels.cut(name, _LONGEST_NAME, SIZE)
    return names


def left_out(names: Sequence[str], why: str) -> str:
    """Say which methods a plot does not show; nothing where it shows all."""
    if not names:
        return ""
    unique = list(dict.fromkeys(names))
    tail = f" and {len(unique) - _MOST_LEFT_OUT} more" if len(unique) > _MOST_LEFT_OUT else ""
    return f" Left out, {why}: {', '.join(unique[:_MOST_LEFT_OUT])}{tail}."

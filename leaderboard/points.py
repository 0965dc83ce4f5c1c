"""Scores over budgets: which of them may be drawn on one pair of axes."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tempeval.leaderboard.schema import Costs, Interval, Plot, Point, Row, Table, Task

# What may differ between the tables of one plot: the budget, and how a run keeps to it.
_SIZES = (
    "frame_policy",
    "visual_token_budget",
    "min_pixels",
    "max_pixels",
    "baseline",
    "methods_plan",
)


def plots_of(tables: Sequence[Table]) -> list[Plot]:
    """Gather the points of all tables: one plot for each task, and for each set of tasks.

    Tables share a plot when they differ in the budget and in how it is spent, and in nothing
    else: model, task version, prompts, data, positions, dtype and limit are the same.

    Args:
        tables: of the document, with ids.

    Returns:
        Macro scores over several tasks first, then tasks by name; points by budget.
    """
    groups: dict[str, list[tuple[Plot, list[Point]]]] = defaultdict(list)
    for table in tables:
        for place, plot in _plots(table):
            points = list(_points(table, place))
            if points:
                groups[_key(table, place)].append((plot, points))
    found = []
    for parts in groups.values():
        plot = parts[0][0]
        points = [point for _, more in parts for point in more]
        plot["points"] = sorted(points, key=lambda point: point["budget"] or 0.0)
        plot["fraction"] = all(part["fraction"] for part, _ in parts)
        found.append(plot)
    return sorted(found, key=_order)


def _plots(table: Table) -> Iterator[tuple[int | None, Plot]]:
    """Give the plots of a table without points, with the task's place or None for the macro."""
    # A mean over tasks of several budgets has none that it could stand at.
    if len(table["tasks"]) > 1 and table["budget"] is not None:
        yield None, _plot(table, table["tasks"])
    for place, task in enumerate(table["tasks"]):
        yield place, _plot(table, [task])


def _plot(table: Table, tasks: Sequence[Task]) -> Plot:
    names = [task["name"] for task in tasks]
    groups = {task["group"] for task in tasks}
    return {
        "task": names[0] if len(names) == 1 else None,
        "tasks": names,
        "group": groups.pop() if len(groups) == 1 else None,
        "model": table["model"],
        "ranked": table["ranked"],
        "higher_is_better": tasks[0]["higher_is_better"],
        "fraction": all(task["fraction"] for task in tasks),
        "points": [],
    }


def _key(table: Table, place: int | None) -> str:
    """Give what all points of a plot share."""
    setting = {name: value for name, value in table["setting"].items() if name not in _SIZES}
    policy = dict(table["setting"]["frame_policy"])
    for size in ("num_frames", "fps"):
        policy.pop(size, None)
    tasks = table["tasks"] if place is None else [table["tasks"][place]]
    # Whether all scores lie in [0, 1] is found out, not set.
    same = [{name: value for name, value in task.items() if name != "fraction"} for task in tasks]
    return json.dumps([setting, policy, same, place is None], sort_keys=True)


def _points(table: Table, place: int | None) -> Iterator[Point]:
    for row in table["rows"]:
        if place is None:
            if row["macro"] is not None and row["costs"] is not None:
                yield _point(table, row, row["macro"], row["macro_score_interval"], row["costs"])
        elif (cell := row["cells"][place]) is not None:
            yield _point(table, row, cell["score"], cell["score_interval"], cell["costs"])


def _point(table: Table, row: Row, score: float, interval: Interval | None, costs: Costs) -> Point:
    return {
        "table": table["id"],
        "label": row["label"],
        "method": row["method"],
        "fingerprint": row["fingerprint"],
        "is_baseline": row["is_baseline"],
        "budget": costs["measures"][table["match_on"]],
        "score": score,
        "interval": interval,
        "measures": costs["measures"],
    }


def _order(plot: Plot) -> tuple[bool, bool, str, str, Iterable[str]]:
    return (
        not plot["ranked"],
        plot["task"] is not None,
        plot["model"],
        plot["task"] or "",
        plot["tasks"],
    )

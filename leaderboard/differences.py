"""The plots of differences to the baseline: one of the means of a table, and one of each task."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tempeval.console import clean
from tempeval.leaderboard import describe, text
from tempeval.leaderboard.axes import axis
from tempeval.leaderboard.figures import MOST_TASKS, Figure, left_out, short_names
from tempeval.leaderboard.forest import Effect, forest
from tempeval.leaderboard.search import row_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard.schema import Document, Interval, IntervalKind, Row, Table


class _Gap(NamedTuple):
    """A difference as it stands in the document."""

    value: float
    ends: Interval | None
    kind: IntervalKind | None
    significant: bool
    fraction: bool


def differences(document: Document) -> dict[tuple[str, int | None], Figure]:
    """Draw the differences of every ranked table.

    Returns:
        (id of the table, place of the task) -> figure. The place is None for the mean over tasks,
        and for the only task of a table. Tasks beside a mean are drawn up to MOST_TASKS.
    """
    wanted = [
        (heading, table, place)
        for heading, table in zip(describe.headings(document), document["tables"], strict=True)
        if table["ranked"]
        for place in _places(table)
    ]
    titles = [
        heading if place is None else f"{table['tasks'][place]['name']} ({heading})"
        for heading, table, place in wanted
    ]
    keys = describe.slugs([f"differences {title}" for title in titles])
    return {
        (table["id"], place): _figure(title, key, table, place)
        for title, key, (_, table, place) in zip(titles, keys, wanted, strict=True)
    }


def _places(table: Table) -> Iterator[int | None]:
    """Yield what there is a difference of: the mean, and tasks."""
    has_mean = _has(table, None)
    if has_mean:
        yield None
    number = len(table["tasks"])
    if number > 1 and (not has_mean or number <= MOST_TASKS):
        yield from (place for place in range(number) if _has(table, place))


def _has(table: Table, place: int | None) -> bool:
    return any(_gap(table, row, place) is not None for row in table["rows"])


def _gap(table: Table, row: Row, place: int | None) -> _Gap | None:
    """Give the difference of a row in the mean or in a task; None where there is none."""
    if row["is_baseline"]:
        return None
    if place is None and len(table["tasks"]) == 1:
        place = 0
    if place is None:
        value, ends = row["macro_difference"], row["macro_interval"]
        found = (ends, row["macro_interval_kind"], False, True)
        return None if value is None else _Gap(value, *found)
    cell = row["cells"][place]
    if cell is None or cell["difference"] is None:
        return None
    fraction = table["tasks"][place]["fraction"]
    ends, kind = cell["interval"], cell["interval_kind"]
    return _Gap(cell["difference"], ends, kind, cell["significant"], fraction)


def _figure(title: str, key: str, table: Table, place: int | None) -> Figure:
    if len(table["tasks"]) == 1:
        place = 0
    names = short_names(table["rows"])
    gaps = [(row, _gap(table, row, place)) for row in table["rows"]]
    effects = [
        _effect(row, gap, names[row["fingerprint"]], row_words(table, row, place))
        for row, gap in gaps
        if gap is not None
    ]
    ends = [end for e in effects for end in (e.value, e.low, e.high) if end is not None]
    asked = None if place is None else table["tasks"][place]
    scale = "points" if asked is None or asked["fraction"] else "the task's own scale"
    what = "macro score" if asked is None else asked["name"]
    lower = asked is not None and not asked["higher_is_better"]
    x = axis([0.0, *ends], f"difference in {what} to the baseline ({scale})")
    how = (
        "no test is made of means over tasks."
        if asked is None
        else "bold: a difference by the corrected test."
    )
    caption = f"95 % cluster-bootstrap intervals of the paired differences; {how}"
    caption += " Lower is better." if lower else ""
    missing = [row["label"] for row, gap in gaps if gap is None and not row["is_baseline"]]
    why = "since they lack a task" if asked is None else "since they lack this task"
    return Figure(forest(key, title, effects, x), caption + left_out(missing, why))


def _effect(row: Row, gap: _Gap, name: str, words: str) -> Effect:
    scale = 100.0 if gap.fraction else 1.0
    label = clean(row["label"])
    shown = text.signed(gap.value, gap.fraction)
    return Effect(
        name=name,
        words=f"{label} {words}",
        value=scale * gap.value,
        low=None if gap.ends is None else scale * gap.ends["low"],
        high=None if gap.ends is None else scale * gap.ends["high"],
        tip=f"{label}\n{shown} {text.interval(gap.ends, gap.fraction, gap.kind)}",
        strong=gap.significant,
    )

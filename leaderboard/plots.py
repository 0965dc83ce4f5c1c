"""The plots of a leaderboard: which there are, what they show, and what is said below them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tempeval.leaderboard import describe, labels, text, tips
from tempeval.leaderboard.axes import Axis, axis, byte_axis
from tempeval.leaderboard.curves import curves
from tempeval.leaderboard.forest import Effect, forest
from tempeval.leaderboard.pareto import pareto
from tempeval.leaderboard.plot_frame import SIZE, Spot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tempeval.leaderboard.drawing import Drawing
    from tempeval.leaderboard.schema import Document, Plot, Point, Row, Table

# What scores are plotted against: measure -> axis, title.
_COSTS = {
    "visual_tokens": ("visual tokens per question", "visual tokens"),
    "kv_bytes": ("keys and values held per question", "bytes of keys and values"),
    "seconds": ("seconds per question, standing alone", "time"),
}
_LONGEST_NAME = 190.0  # pixels
_NEAREST_TICKS = 0.08  # of the width of an axis


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing and what is said below it."""

    drawing: Drawing
    caption: str


@dataclass(frozen=True, slots=True)
class Panel:
    """The figures of one set of scores, and what could not be drawn."""

    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]


def panels(document: Document) -> list[Panel]:
    """Draw scores against budget and costs, for every set of scores that is ranked.

    Mean scores are drawn where there are means; a table of one task has its own.
    """
    wanted = [
        plot
        for plot in document["plots"]
        if plot["ranked"] and len(plot["points"]) > 1 and _wanted(document, plot)
    ]
    keys = describe.slugs([f"{_group(plot)} {plot['model']}" for plot in wanted])
    return [_panel(document, plot, key) for plot, key in zip(wanted, keys, strict=True)]


def differences(document: Document) -> dict[str, Figure]:
    """Draw the differences to the baseline; the keys are the ids of the tables."""
    names = describe.headings(document)
    keys = describe.slugs([f"differences {name}" for name in names])
    found = {}
    for heading, key, table in zip(names, keys, document["tables"], strict=True):
        figure = _differences(heading, key, table)
        if figure is not None and table["ranked"]:
            found[table["id"]] = figure
    return found


def drawings(document: Document) -> list[Drawing]:
    """Give all drawings, each with a name of its own."""
    shown = [figure.drawing for panel in panels(document) for figure in panel.figures]
    return [*shown, *(figure.drawing for figure in differences(document).values())]


def _wanted(document: Document, plot: Plot) -> bool:
    """Tell whether a plot is of means, or of the only task of a table."""
    alone = {table["id"] for table in document["tables"] if len(table["tasks"]) == 1}
    return plot["task"] is None or any(point["table"] in alone for point in plot["points"])


def _group(plot: Plot) -> str:
    return describe.group(plot["tasks"], [plot["group"]])


def _panel(document: Document, plot: Plot, stem: str) -> Panel:
    points = plot["points"]
    title = f"{_group(plot)}: {text.clean(plot['model'])}"
    scale = 100.0 if plot["fraction"] else 1.0
    ends = [end for point in points for end in _ends(point)]
    y = axis([scale * end for end in ends], _score_name(plot))
    on = document["methodology"]["match_on"]
    names = _names(points)
    figures: list[Figure] = []
    notes: list[str] = []
    often = Counter(point["fingerprint"] for point in points)
    if len({point["table"] for point in points}) > 1:
        several = [p for p in points if often[p["fingerprint"]] > 1 and p["budget"] is not None]
        if any(not point["is_baseline"] for point in several):
            heading = f"{title}, against the budget"
            figures.append(_budget_curves(f"budget-{stem}", heading, plot, several, on, y))
        else:
            notes.append("Not drawn against the budget: no method was run at several.")
    for measure, (label, short) in _COSTS.items():
        known = [point for point in points if point["measures"].get(measure) is not None]
        values = [point["measures"][measure] or 0.0 for point in known]
        if len(known) < 2:
            notes.append(f"Not drawn against {short}: not measured.")
        elif max(values) - min(values) <= document["methodology"]["tolerance"] * max(values):
            same = _COST_TEXTS[measure](values[0])
            notes.append(f"Not drawn against {short}: all methods are at {same}.")
        else:
            x, unit = _cost_axis(measure, label, values, on)
            spots = [
                _spot(
                    point,
                    names[point["fingerprint"]]
                    + (_budget_mark(point, on) if often[point["fingerprint"]] > 1 else ""),
                    (point["measures"][measure] or 0.0) / unit,
                    plot["fraction"],
                )
                for point in known
            ]
            heading = f"{title}, against {short}"
            better = plot["higher_is_better"]
            key = f"pareto-{measure.replace('_', '-')}-{stem}"
            drawing = pareto(key, heading, spots, x, y, higher_is_better=better)
            figures.append(Figure(drawing, _pareto_caption(len(known) < len(points))))
    return Panel(title, tuple(figures), tuple(notes))


_COST_TEXTS: dict[str, Callable[[float], str]] = {
    "visual_tokens": lambda value: f"{text.count(value)} per question",
    "kv_bytes": text.size,
    "seconds": lambda value: f"{text.seconds(value)} s",
}


def _pareto_caption(some_missing: bool) -> str:
    caption = (
        "Filled and joined: the Pareto front of the point estimates. Squares: baselines. Bars: "
        "95 % intervals of the scores, not of differences."
    )
    return f"{caption} Methods without this measure are left out." if some_missing else caption


def _budget_curves(
    key: str, title: str, plot: Plot, points: Sequence[Point], on: str, y: Axis
) -> Figure:
    """Draw score against budget for the methods that have several, the baseline first."""
    names = _names(points)
    values = [point["budget"] or 0.0 for point in points]
    label = f"{describe.BUDGETS.get(on, on).removeprefix('of ')} per question"
    x, unit = _cost_axis(on, label, values, on)
    lines: dict[str, list[Spot]] = defaultdict(list)
    for point in sorted(points, key=lambda point: not point["is_baseline"]):
        name = names[point["fingerprint"]]
        spot = _spot(point, name, (point["budget"] or 0.0) / unit, plot["fraction"])
        lines[point["fingerprint"]].append(spot)
    caption = (
        "Each budget has its own baseline. Points at one budget stand side by side. Bars: 95 % "
        "intervals of the scores, not of differences."
    )
    drawn = [(names[fingerprint], spots) for fingerprint, spots in lines.items()]
    return Figure(curves(key, title, drawn, x, y), caption)


def _differences(heading: str, key: str, table: Table) -> Figure | None:
    names = _names(table["rows"])
    found = [_effect(table, row, names[row["fingerprint"]]) for row in table["rows"]]
    effects = [effect for effect in found if effect is not None]
    if not effects:
        return None
    ends = [end for e in effects for end in (e.value, e.low, e.high) if end is not None]
    one = table["tasks"][0] if len(table["tasks"]) == 1 else None
    scale = "points" if one is None or one["fraction"] else "the task's own scale"
    what = "macro score" if one is None else one["name"]
    x = axis([0.0, *ends], f"difference in {what} to the baseline ({scale})")
    how = (
        "no test is made of means over tasks."
        if one is None
        else "bold: a difference by the corrected test."
    )
    caption = f"95 % cluster-bootstrap intervals of the paired differences; {how}"
    return Figure(forest(key, heading, effects, x), caption)


def _effect(table: Table, row: Row, name: str) -> Effect | None:
    if row["is_baseline"]:
        return None
    fraction, strong = True, False
    value, ends, kind = (
        row["macro_difference"],
        row["macro_interval"],
        row["macro_interval_kind"],
    )
    if len(table["tasks"]) == 1:
        cell = row["cells"][0]
        if cell is None:
            return None
        fraction = table["tasks"][0]["fraction"]
        value, ends, kind = cell["difference"], cell["interval"], cell["interval_kind"]
        strong = cell["significant"]
    if value is None:
        return None
    scale = 100.0 if fraction else 1.0
    return Effect(
        name=name,
        full=text.clean(row["label"]),
        value=scale * value,
        low=None if ends is None else scale * ends["low"],
        high=None if ends is None else scale * ends["high"],
        tip=f"{text.clean(row['label'])}\n"
        f"{text.signed(value, fraction)} {text.interval(ends, fraction, kind)}",
        strong=strong,
    )


def _names(points: Sequence[Point] | Sequence[Row]) -> dict[str, str]:
    """Name methods shortly, by fingerprint: without settings, where that tells them apart."""
    methods: dict[str, set[str]] = defaultdict(set)
    for point in points:
        methods[point["method"]].add(point["fingerprint"])
    names = {}
    for point in points:
        alone = len(methods[point["method"]]) == 1
        name = text.clean(point["method"] if alone else point["label"])
        names[point["fingerprint"]] = labels.cut(name, _LONGEST_NAME, SIZE)
    return names


def _spot(point: Point, name: str, x: float, fraction: bool) -> Spot:
    scale = 100.0 if fraction else 1.0
    ends = point["interval"]
    tip = "\n".join(text.clean(line) for line in tips.point(point, fraction).splitlines())
    return Spot(
        name=name,
        full=text.clean(point["label"]),
        x=x,
        y=scale * point["score"],
        low=None if ends is None else scale * ends["low"],
        high=None if ends is None else scale * ends["high"],
        tip=tip,
        is_baseline=point["is_baseline"],
    )


def _budget_mark(point: Point, on: str) -> str:
    show = {"kv_bytes": text.size, "prefill_flops": text.tera}.get(on, text.count)
    return f" · {show(point['budget'])}"


def _ends(point: Point) -> Iterator[float]:
    yield point["score"]
    if point["interval"] is not None:
        yield from (point["interval"]["low"], point["interval"]["high"])


def _score_name(plot: Plot) -> str:
    name = "macro score" if plot["task"] is None else plot["task"]
    unit = " (%)" if plot["fraction"] else ""
    return f"{name}{unit}" + ("" if plot["higher_is_better"] else ", lower is better")


def _cost_axis(measure: str, label: str, values: Sequence[float], on: str) -> tuple[Axis, float]:
    """Give the axis of a cost and the size of its unit; a budget has its ticks at the budgets."""
    unit = 1.0
    if measure == "kv_bytes":
        drawn, unit = byte_axis(values, label)
    elif measure == "prefill_flops":
        drawn, unit = axis([value / 1e12 for value in values], label, may_log=True), 1e12
    else:
        drawn = axis(values, label, may_log=True)
    if measure != on:
        return drawn, unit
    ticks: list[tuple[float, str]] = []
    for value in sorted({value / unit for value in values}):
        last = drawn.place(ticks[-1][0], 0.0, 1.0) if ticks else -1.0
        if drawn.place(value, 0.0, 1.0) - last > _NEAREST_TICKS:
            ticks.append((value, f"{value:.4g}" if value < 1000 else f"{value:.0f}"))
    return replace(drawn, ticks=tuple(ticks)), unit

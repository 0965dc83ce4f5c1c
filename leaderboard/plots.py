"""The plots of scores against budget and costs: which there are, and what is said below them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tempeval.console import clean
from tempeval.leaderboard import describe, text, tips
from tempeval.leaderboard.axes import Axis, axis, byte_axis
from tempeval.leaderboard.curves import curves
from tempeval.leaderboard.differences import differences
from tempeval.leaderboard.figures import MOST_TASKS, Figure, left_out, short_names
from tempeval.leaderboard.pareto import pareto
from tempeval.leaderboard.plot_frame import Spot
from tempeval.leaderboard.search import point_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tempeval.leaderboard.drawing import Drawing
    from tempeval.leaderboard.schema import Document, Plot, Point

# What scores are plotted against: measure -> axis, title.
_COSTS = {
    "visual_tokens": ("visual tokens per question", "visual tokens"),
    "kv_bytes": ("keys and values held per question", "bytes of keys and values"),
    "seconds": ("seconds per question, standing alone", "time"),
}
_NEAREST_TICKS = 0.08  # of the width of an axis


@dataclass(frozen=True, slots=True)
class Panel:
    """The figures of one set of scores, and what could not be drawn.

    `is_part` is True for a task whose mean with others is drawn too.
    """

    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    is_part: bool


def panels(document: Document) -> list[Panel]:
    """Draw scores against budget and costs, for every set of scores that is ranked.

    Tasks that have a mean with others are drawn up to MOST_TASKS of them, the others always.
    """
    drawn = [plot for plot in document["plots"] if plot["ranked"] and len(plot["points"]) > 1]
    means = [plot for plot in drawn if plot["task"] is None]
    wanted = [
        plot
        for plot in drawn
        if plot["task"] is None or all(len(m["tasks"]) <= MOST_TASKS for m in _means(plot, means))
    ]
    keys = describe.slugs([f"{_group(plot)} {plot['model']}" for plot in wanted])
    found: list[tuple[int, bool, Panel]] = []
    for number, (plot, key) in enumerate(zip(wanted, keys, strict=True)):
        over = _means(plot, means) if plot["task"] else []
        panel = replace(_panel(document, plot, key), is_part=bool(over))
        # The tasks of a mean follow it.
        found.append((wanted.index(over[0]) if over else number, bool(over), panel))
    return [panel for *_, panel in sorted(found, key=lambda each: each[:2])]


def drawings(document: Document) -> list[Drawing]:
    """Give all drawings, each with a name of its own."""
    shown = [figure.drawing for panel in panels(document) for figure in panel.figures]
    return [*shown, *(figure.drawing for figure in differences(document).values())]


def _means(plot: Plot, means: Sequence[Plot]) -> list[Plot]:
    """Give the plots of means that have every table of a task's plot among theirs."""
    tables = {point["table"] for point in plot["points"]}
    over = [mean for mean in means if plot["task"] in mean["tasks"]]
    return [mean for mean in over if tables <= {point["table"] for point in mean["points"]}]


def _without_mean(document: Document, plot: Plot) -> list[str]:
    """Name the methods that stand in the tables of a plot and not in it."""
    tables = {point["table"] for point in plot["points"]}
    shown = {(point["table"], point["fingerprint"]) for point in plot["points"]}
    return [
        row["label"]
        for table in document["tables"]
        if table["id"] in tables
        for row in table["rows"]
        if (table["id"], row["fingerprint"]) not in shown
    ]


def _group(plot: Plot) -> str:
    return describe.group(plot["tasks"], [plot["group"]])


def _panel(document: Document, plot: Plot, stem: str) -> Panel:
    points = plot["points"]
    title = f"{_group(plot)}: {clean(plot['model'])}"
    scale = 100.0 if plot["fraction"] else 1.0
    ends = [end for point in points for end in _ends(point)]
    y = axis([scale * end for end in ends], _score_name(plot))
    on = document["methodology"]["match_on"]
    names = short_names(points)
    words = point_words(document, plot["task"])
    figures: list[Figure] = []
    notes: list[str] = []
    why = "since they lack a task" if plot["task"] is None else "since they lack this task"
    missing = left_out(_without_mean(document, plot), why)
    if plot["task"] is None and len(plot["tasks"]) > MOST_TASKS:
        notes.append(f"Only the mean is drawn, not each of its {len(plot['tasks'])} tasks.")
    often = Counter(point["fingerprint"] for point in points)
    if len({point["table"] for point in points}) > 1:
        several = [p for p in points if often[p["fingerprint"]] > 1 and p["budget"] is not None]
        if any(not point["is_baseline"] for point in several):
            heading = f"{title}, against the budget"
            figures.append(
                _budget_curves(f"budget-{stem}", heading, plot, several, on, y, words, missing)
            )
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
                    words,
                )
                for point in known
            ]
            heading = f"{title}, against {short}"
            better = plot["higher_is_better"]
            key = f"pareto-{measure.replace('_', '-')}-{stem}"
            drawing = pareto(key, heading, spots, x, y, higher_is_better=better)
            unknown = [point["label"] for point in points if point not in known]
            caption = _PARETO + missing + left_out(unknown, "not measured")
            figures.append(Figure(drawing, caption))
    return Panel(title, tuple(figures), tuple(notes), is_part=False)


_COST_TEXTS: dict[str, Callable[[float], str]] = {
    "visual_tokens": lambda value: f"{text.count(value)} per question",
    "kv_bytes": text.size,
    "seconds": lambda value: f"{text.seconds(value)} s",
}


_PARETO = (
    "Filled and joined: the Pareto front of the point estimates. Squares: baselines. Bars: "
    "95 % intervals of the scores, not of differences."
)


def _budget_curves(
    key: str,
    title: str,
    plot: Plot,
    points: Sequence[Point],
    on: str,
    y: Axis,
    words: Mapping[tuple[str, str], str],
    missing: str,
) -> Figure:
    """Draw score against budget for the methods that have several, the baseline first."""
    names = short_names(points)
    values = [point["budget"] or 0.0 for point in points]
    label = f"{describe.BUDGETS.get(on, on).removeprefix('of ')} per question"
    x, unit = _cost_axis(on, label, values, on)
    lines: dict[str, list[Spot]] = defaultdict(list)
    for point in sorted(points, key=lambda point: not point["is_baseline"]):
        name = names[point["fingerprint"]]
        spot = _spot(point, name, (point["budget"] or 0.0) / unit, plot["fraction"], words)
        lines[point["fingerprint"]].append(spot)
    caption = (
        "Each budget has its own baseline. Points at one budget stand side by side. Bars: 95 % "
        "intervals of the scores, not of differences."
    )
    others = [p["label"] for p in plot["points"] if p["fingerprint"] not in lines]
    caption += missing + left_out(others, "since they have one budget")
    drawn = [(names[fingerprint], spots) for fingerprint, spots in lines.items()]
    return Figure(curves(key, title, drawn, x, y), caption)


def _spot(
    point: Point, name: str, x: float, fraction: bool, words: Mapping[tuple[str, str], str]
) -> Spot:
    scale = 100.0 if fraction else 1.0
    ends = point["interval"]
    tip = "\n".join(clean(line) for line in tips.point(point, fraction).splitlines())
    return Spot(
        name=name,
        full=clean(point["label"]),
        words=f"{point['label']} {words.get((point['table'], point['fingerprint']), '')}",
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

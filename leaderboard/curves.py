"""Draw score against budget, one line for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.leaderboard import labels
from tempeval.leaderboard.drawing import (
    INK,
    MARKS,
    PALETTE,
    Drawing,
    Group,
    Line,
    Mark,
    Style,
    Text,
)
from tempeval.leaderboard.plot_frame import (
    AREA,
    GRID,
    HEIGHT,
    LEADER,
    SIZE,
    WIDTH,
    bar_of,
    frame,
    spot_at,
    taken,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.axes import Axis
    from tempeval.leaderboard.drawing import Item
    from tempeval.leaderboard.plot_frame import Spot


_APART = 4.0  # pixels between the points of two methods at one budget
_NAME = Style("name strong", fill=INK, size=SIZE, halo=3.0)


def curves(
    name: str, title: str, lines: Sequence[tuple[str, Sequence[Spot]]], x: Axis, y: Axis
) -> Drawing:
    """Plot score against budget, one line for each method, named at its right end.

    Args:
        name: of the picture, unique in a page.
        title: printed above it.
        lines: the printed name of each method and its points; one point makes no line.
        x: the axis of budgets.
        y: the axis of scores.

    Returns:
        The drawing; its description lists the methods.
    """
    items: list[Item] = [*frame(title, x, y)]
    ends = []
    for number, (label, unsorted) in enumerate(lines):
        spots = sorted(unsorted, key=lambda spot: spot.x)
        color = INK if spots[0].is_baseline else PALETTE[number % len(PALETTE)]
        # After one round of colours the marks change, so that no two lines look the same.
        kind = "square" if spots[0].is_baseline else MARKS[number // len(PALETTE) % 3]
        style = Style(
            f"series-{'base' if spots[0].is_baseline else number % len(PALETTE)}",
            stroke=color,
            fill=color,
        )
        stroke = Style(style.name, stroke=color, width=1.5)
        # Side by side, so that intervals at one budget do not hide one another.
        shift = _APART * (number - (len(lines) - 1) / 2)
        at = [(px + shift, py) for px, py in (spot_at(spot, x, y) for spot in spots)]
        if len(at) > 1:
            items.append(Line(tuple(at), stroke))
        for spot, point in zip(spots, at, strict=True):
            bar = bar_of(spot, point[0], y, style)
            items.append(Group((*bar, Mark(point, kind, style)), spot.words, spot.tip))
        ends.append((at[-1], label))
    spots = [spot for _, each in lines for spot in each]
    drawn = [item.points for item in items if isinstance(item, Line) and item.style is not GRID]
    covered = list(taken(spots, drawn, x, y))
    for (_, label), placed in zip(ends, labels.place(ends, covered, AREA, SIZE), strict=True):
        if placed is None:
            continue
        if placed.leader:
            items.append(Line(placed.leader, LEADER))
        items.append(Text(placed.at, label, _NAME, placed.anchor))
    named = ", ".join(label for label, _ in lines)
    description = f"{y.label} against {x.label} for {named}."
    return Drawing(name, title, description, WIDTH, HEIGHT, tuple(items))

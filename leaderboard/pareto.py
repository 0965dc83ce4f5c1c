"""Draw score against cost, with the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.leaderboard import labels
from tempeval.leaderboard.drawing import (
    INK,
    PALETTE,
    PAPER,
    SOFT,
    Drawing,
    Group,
    Line,
    Mark,
    Style,
    Text,
)
from tempeval.leaderboard.plot_frame import (
    AREA,
    BOTTOM,
    GRID,
    HEIGHT,
    LEADER,
    LEFT,
    RIGHT,
    SIZE,
    TOP,
    WIDTH,
    bar_of,
    frame,
    spot_at,
    taken,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.axes import Axis
    from tempeval.leaderboard.drawing import Item, MarkKind, Point
    from tempeval.leaderboard.plot_frame import Spot

_FRONT = Style("front", stroke=PALETTE[1], width=1.5)
_BASE_LINE = Style("base-line", stroke=SOFT, dash=(4.0, 3.0))
_BASE = Style("base", stroke=INK, fill=INK)
_ON_FRONT = Style("on-front", stroke=PALETTE[1], fill=PALETTE[1])
_BEHIND = Style("behind", stroke=PALETTE[0], fill=PAPER, width=1.5)


def front(spots: Sequence[Spot], *, higher_is_better: bool = True) -> list[Spot]:
    """Give the points that no other point beats: none is both cheaper and better.

    Args:
        spots: the points; lower x is better.
        higher_is_better: whether higher y is.

    Returns:
        The front by increasing x. Of points with equal x and y all stay.
    """
    sign = 1.0 if higher_is_better else -1.0

    def beaten(spot: Spot) -> bool:
        return any(
            other.x <= spot.x
            and sign * other.y >= sign * spot.y
            and (other.x < spot.x or sign * other.y > sign * spot.y)
            for other in spots
        )

    kept = [spot for spot in spots if not beaten(spot)]
    return sorted(kept, key=lambda spot: (spot.x, sign * spot.y, spot.full))


def pareto(
    name: str,
    title: str,
    spots: Sequence[Spot],
    x: Axis,
    y: Axis,
    *,
    higher_is_better: bool = True,
) -> Drawing:
    """Plot score against cost: baselines square, the front filled and joined, the rest hollow.

    Args:
        name: of the picture, unique in a page; letters, digits and dashes.
        title: printed above it.
        spots: the points, at least one.
        x: the axis of costs.
        y: the axis of scores.
        higher_is_better: whether a higher score is.

    Returns:
        The drawing; its description lists the front.
    """
    best = front(spots, higher_is_better=higher_is_better)
    items: list[Item] = [*frame(title, x, y)]
    bases = [spot for spot in spots if spot.is_baseline]
    if len(bases) == 1:
        level = y.place(bases[0].y, BOTTOM, TOP)
        items.append(Line(((LEFT, level), (RIGHT, level)), _BASE_LINE))
    if len(best) > 1:
        items.append(Line(_stairs(best, x, y), _FRONT))
    # The front and the baselines have the first choice of places for their names.
    ordered = sorted(
        spots, key=lambda s: (not (s in best or s.is_baseline), s not in best, s.x, -s.y, s.full)
    )
    groups = []
    # From left to right, as arrow keys go through them; of equal ones the baseline on top.
    for spot in sorted(spots, key=lambda s: (s.x, s.is_baseline, s in best, s.y, s.full)):
        style = _BASE if spot.is_baseline else _ON_FRONT if spot in best else _BEHIND
        kind: MarkKind = "square" if spot.is_baseline else "disc"
        at = spot_at(spot, x, y)
        bar = bar_of(spot, at[0], y, style)
        groups.append(Group((*bar, Mark(at, kind, style)), spot.words, spot.tip))
    lines = [item.points for item in items if isinstance(item, Line) and item.style is not GRID]
    items += [*_named(ordered, x, y, best, lines), *groups]
    named = ", ".join(
        f"{spot.name} ({spot.full})" if spot.name != spot.full else spot.name for spot in best
    )
    description = (
        f"{len(spots)} points: {y.label} against {x.label}. "
        f"On the Pareto front, from the cheapest: {named}."
    )
    return Drawing(name, title, description, WIDTH, HEIGHT, tuple(items))


def _stairs(best: Sequence[Spot], x: Axis, y: Axis) -> tuple[tuple[float, float], ...]:
    """Give the corners of the line below which everything is beaten."""
    points: list[tuple[float, float]] = []
    for spot in best:
        at = spot_at(spot, x, y)
        if points:
            points.append((at[0], points[-1][1]))
        points.append(at)
    return tuple(points)


def _named(
    spots: Sequence[Spot],
    x: Axis,
    y: Axis,
    best: Sequence[Spot],
    lines: Sequence[Sequence[Point]],
) -> list[Item]:
    """Write the names beside the points, clear of the lines where there is room."""
    at = [spot_at(spot, x, y) for spot in spots]
    covered = list(taken(spots, lines, x, y))
    wanted = [(point, spot.name) for point, spot in zip(at, spots, strict=True)]
    strong = sum(spot.is_baseline or spot in best for spot in spots)
    places = labels.place(wanted, covered, AREA, SIZE, required=strong)
    items: list[Item] = []
    for number, (spot, found) in enumerate(zip(spots, places, strict=True)):
        if found is None:
            continue
        style = Style(
            "name strong" if number < strong else "name",
            fill=INK if number < strong else SOFT,
            size=SIZE,
            bold=spot in best,
            halo=3.0,
        )
        if found.leader:
            items.append(Line(found.leader, LEADER))
        items.append(Text(found.at, spot.name, style, found.anchor))
    return items

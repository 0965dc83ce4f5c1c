"""What the plots of scores share: their size and styles, points, and the frame with its axes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.leaderboard.drawing import INK, RULE, SOFT, Line, Style, Text
from tempeval.leaderboard.labels import Box, cut, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tempeval.leaderboard.axes import Axis
    from tempeval.leaderboard.drawing import Item, Point

WIDTH, HEIGHT = 500.0, 370.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, WIDTH - 16.0, 42.0, HEIGHT - 44.0
AREA = Box(LEFT + 2, TOP, WIDTH - 2, BOTTOM)
SIZE = 11.0
LINE = 16.0  # from one line of a title to the next

_BOLDER = 1.1  # width of bold letters, over that of plain ones
TITLE = Style("title", fill=INK, size=12.5, bold=True)
SOFT_TEXT = Style("soft", fill=SOFT, size=SIZE)
AXIS_TEXT = Style("axis", fill=INK, size=SIZE)
GRID = Style("grid", stroke=RULE)
AXIS_LINE = Style("axis-line", stroke=SOFT)
LEADER = Style("leader", stroke=SOFT, width=0.6)


@dataclass(frozen=True, slots=True)
class Spot:
    """One point of a plot.

    Attributes:
        name: the short name that is printed beside it.
        full: the whole name.
        words: what a page's filter finds it by.
        x: cost or budget, in the unit of the axis.
        y: score, in the unit of the axis.
        low: low end of its interval on the same axis, None where there is none.
        high: high end.
        tip: all of its numbers, lines ending with newlines.
        is_baseline: drawn as a square.
    """

    name: str
    full: str
    words: str
    x: float
    y: float
    low: float | None
    high: float | None
    tip: str
    is_baseline: bool


def frame(title: str, x: Axis, y: Axis) -> list[Item]:
    """Draw the title, the horizontal grid, ticks and names of the axes."""
    items: list[Item] = [*title_lines(title, 8, 2)]
    for value, text in y.ticks:
        level = y.place(value, BOTTOM, TOP)
        items.append(Line(((LEFT, level), (RIGHT, level)), GRID))
        items.append(Text((LEFT - 7, level + 0.36 * SIZE), text, SOFT_TEXT, "end"))
    for value, text in x.ticks:
        place = x.place(value, LEFT, RIGHT)
        items.append(Line(((place, BOTTOM), (place, BOTTOM + 4)), GRID))
        items.append(Text((place, BOTTOM + 17), text, SOFT_TEXT, "middle"))
    items.append(Line(((LEFT, BOTTOM), (RIGHT, BOTTOM)), AXIS_LINE))
    middle = (LEFT + RIGHT) / 2
    items.append(Text((middle, HEIGHT - 8), x.label, AXIS_TEXT, "middle"))
    side = cut(y.label, BOTTOM - TOP, SIZE)
    items.append(Text((14, (TOP + BOTTOM) / 2), side, AXIS_TEXT, "middle", turned=True))
    return items


def title_lines(title: str, left: float, most: int) -> list[Text]:
    """Write a title in as many lines as it needs, `most` at most, from pixel `left` on."""
    size = TITLE.size * _BOLDER
    lines = wrap(title, WIDTH - 2 * left, size, most)
    return [Text((left, 17 + LINE * number), line, TITLE) for number, line in enumerate(lines)]


def spot_at(spot: Spot, x: Axis, y: Axis) -> Point:
    """Give the pixel of a point."""
    return (x.place(spot.x, LEFT, RIGHT), y.place(spot.y, BOTTOM, TOP))


def bar_of(spot: Spot, px: float, y: Axis, style: Style) -> list[Line]:
    """Draw a point's interval at pixel `px`; nothing where there is none."""
    if spot.low is None or spot.high is None:
        return []
    ends = [y.place(value, BOTTOM, TOP) for value in (spot.low, spot.high)]
    thin = Style(f"{style.name} bar", stroke=style.stroke, width=1.0)
    return [Line(((px, ends[0]), (px, ends[1])), thin)]


def taken(
    spots: Sequence[Spot], lines: Iterable[Sequence[Point]], x: Axis, y: Axis
) -> Iterator[Box]:
    """Yield what names should not cover: marks, intervals, and the parts of lines.

    A slanted line takes the boxes of short pieces of it.
    """
    for spot in spots:
        px, py = spot_at(spot, x, y)
        yield Box(px - 5, py - 5, px + 5, py + 5)
        if spot.low is not None and spot.high is not None:
            top, bottom = (y.place(value, BOTTOM, TOP) for value in (spot.high, spot.low))
            yield Box(px - 1, min(top, bottom), px + 1, max(top, bottom))
    for line in lines:
        for (x0, y0), (x1, y1) in itertools.pairwise(line):
            pieces = 1 if x0 == x1 or y0 == y1 else 24
            for i in range(pieces):
                ends = (i / pieces, (i + 1) / pieces)
                left, right = sorted(x0 + (x1 - x0) * end for end in ends)
                top, bottom = sorted(y0 + (y1 - y0) * end for end in ends)
                yield Box(left, top - 1, right + 1, bottom + 1)

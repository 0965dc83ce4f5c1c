"""Draw differences to the baseline with their intervals, one line for each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.leaderboard import labels
from tempeval.leaderboard.drawing import INK, PALETTE, SOFT, Drawing, Group, Line, Mark, Style, Text
from tempeval.leaderboard.plot_frame import (
    AXIS_LINE,
    AXIS_TEXT,
    GRID,
    LINE,
    SIZE,
    SOFT_TEXT,
    WIDTH,
    title_lines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.axes import Axis
    from tempeval.leaderboard.drawing import Item

_TOP, _ROW, _FOOT, _RIGHT = 34.0, 21.0, 44.0, WIDTH - 16.0
_WIDEST_NAME = 0.42 * WIDTH
_MOST_LINES = 4  # of the title

_ZERO = Style("base-line", stroke=SOFT, dash=(4.0, 3.0))
_EFFECT = Style("effect", stroke=PALETTE[0], fill=PALETTE[0])
_BAR = Style("effect bar", stroke=PALETTE[0], width=1.5)
_NAME = Style("axis", fill=INK, size=SIZE)
_STRONG = Style("axis", fill=INK, size=SIZE, bold=True)


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference and its interval, in the unit of the axis.

    `words` are what a page's filter finds it by, and `tip` has all of its numbers. `strong` is True
    where the corrected test finds a difference.
    """

    name: str
    words: str
    value: float
    low: float | None
    high: float | None
    tip: str
    strong: bool = False


def forest(name: str, title: str, effects: Sequence[Effect], x: Axis) -> Drawing:
    """Draw one line per effect, in the order given; names are bold as in the tables.

    Args:
        name: of the picture, unique in a page.
        title: printed above it.
        effects: at least one.
        x: the axis of differences; it holds 0.

    Returns:
        The drawing; its description has the numbers.
    """
    names = [labels.cut(effect.name, _WIDEST_NAME, SIZE) for effect in effects]
    left = 16.0 + max(labels.width(each, SIZE) for each in names)
    heading = title_lines(title, 8, _MOST_LINES)
    top = _TOP + LINE * (len(heading) - 1)
    bottom = top + _ROW * len(effects) + 6
    items: list[Item] = [*heading]
    for value, shown in x.ticks:
        place = x.place(value, left, _RIGHT)
        items.append(Line(((place, top), (place, bottom)), GRID))
        items.append(Text((place, bottom + 17), shown, SOFT_TEXT, "middle"))
    zero = x.place(0.0, left, _RIGHT)
    items.append(Line(((zero, top), (zero, bottom)), _ZERO))
    items.append(Line(((left, bottom), (_RIGHT, bottom)), AXIS_LINE))
    # Below the middle of the axis, but inside the picture.
    below = labels.cut(x.label, WIDTH - 16, SIZE)
    middle = min((left + _RIGHT) / 2, WIDTH - 8 - labels.width(below, SIZE) / 2)
    items.append(Text((middle, bottom + 36), below, AXIS_TEXT, "middle"))
    for row, (effect, shown) in enumerate(zip(effects, names, strict=True)):
        level = top + _ROW * (row + 0.5) + 3
        name_style = _STRONG if effect.strong else _NAME
        items.append(Text((left - 8, level + 0.36 * SIZE), shown, name_style, "end"))
        parts: list[Line | Mark] = []
        if effect.low is not None and effect.high is not None:
            ends = [(x.place(end, left, _RIGHT), level) for end in (effect.low, effect.high)]
            parts.append(Line(tuple(ends), _BAR))
        at = (x.place(effect.value, left, _RIGHT), level)
        parts.append(Mark(at, "disc", _EFFECT, 3.5))
        items.append(Group(tuple(parts), effect.words, effect.tip))
    said = "; ".join(effect.tip.replace("\n", ", ") for effect in effects)
    return Drawing(name, title, f"{x.label}: {said}.", WIDTH, bottom + _FOOT, tuple(items))

"""Put labels beside the points they name, where they cover neither each other nor points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.drawing import Anchor, Point

# Widths of DejaVu Sans in fractions of the font size, rounded up.
_NARROW, _WIDE = frozenset("ijl.,:;|!'()[] "), frozenset("mwMW@%")
# A label of which more than this share covers something is left out where it may be.
_CROWDED = 0.15
_STEPS = (9.0, 20.0, 34.0, 50.0, 68.0)
# Right and left first: beside a point is where a label is looked for.
_WAYS = ((1, 0), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1), (0, -1), (0, 1))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; `top` is the smaller number."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def overlap(self, other: Box) -> float:
        """Give the area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, other: Box) -> bool:
        """Tell whether no part of this box is outside another."""
        across = self.left >= other.left and self.right <= other.right
        return across and self.top >= other.top and self.bottom <= other.bottom


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a label goes; `leader` is the line from the point to a label far from it."""

    at: Point
    anchor: Anchor
    leader: tuple[Point, Point] | None


def width(text: str, size: float) -> float:
    """Estimate the width of a line of text of a font size, in pixels."""
    total = 0.0
    for character in text:
        if combining(character):
            continue
        if east_asian_width(character) in "WF":
            total += 1.0
        elif character in _NARROW:
            total += 0.4
        elif character in _WIDE:
            total += 1.0
        else:
            total += 0.7 if character.isupper() else 0.62
    return total * size


def cut(text: str, longest: float, size: float) -> str:
    """Cut the middle out of a text to fit a width in pixels: names differ at their ends."""
    if width(text, size) <= longest:
        return text
    head, tail = len(text) - len(text) // 2, len(text) // 2
    while head + tail > 1 and width(f"{text[:head]}…{text[-tail:]}", size) > longest:
        if head >= tail:
            head -= 1
        else:
            tail -= 1
    return f"{text[:head]}…{text[-tail:]}" if tail else f"{text[:head]}…"


def wrap(text: str, longest: float, size: float, most: int) -> list[str]:
    """Break a text into lines that fit a width in pixels, at spaces and after commas and slashes.

    Args:
        text: one line.
        longest: width of a line in pixels.
        size: of the font.
        most: lines at most; the middle is cut out of a last one that does not fit.
    """
    lines: list[str] = [""]
    for piece in re.findall(r"\s*[^\s,/;_]*[\s,/;_]?", text):
        if lines[-1] and width(lines[-1] + piece.rstrip(), size) > longest and len(lines) < most:
            lines.append("")
        lines[-1] += piece
    return [cut(line.strip(), longest, size) for line in lines if line.strip()] or [""]


def place(
    labels: Sequence[tuple[Point, str]],
    taken: Sequence[Box],
    bounds: Box,
    size: float,
    *,
    required: int | None = None,
) -> list[Placed | None]:
    """Choose a place for each label, the first ones first.

    Args:
        labels: the point and the text of each.
        taken: what labels should not cover, such as marks and bars.
        bounds: what they may not leave, if any place is inside.
        size: of the font.
        required: how many of the first labels are placed however crowded it is; None for all.

    Returns:
        The places, in the order received, None for a label that found no room; the same for the
        same arguments.
    """
    covered = list(taken)
    placed: list[Placed | None] = []
    for number, (point, text) in enumerate(labels):
        best: tuple[float, float, Placed, Box] | None = None
        for rank, (found, box) in enumerate(_places(point, width(text, size), size)):
            hidden = sum(box.overlap(other) for other in covered)
            cost = 10 * hidden + 4 * rank + (0 if box.inside(bounds) else 1e6)
            if best is None or cost < best[0]:
                best = (cost, hidden / (box.area or 1.0), found, box)
        must = required is None or number < required
        if best is None or (best[1] > _CROWDED and not must):
            placed.append(None)
            continue
        placed.append(best[2])
        covered.append(best[3])
    return placed


def _places(point: Point, length: float, size: float) -> list[tuple[Placed, Box]]:
    """Give the candidates for one label, the nearest and most usual first."""
    x, y = point
    height = 1.15 * size
    found = []
    for step in _STEPS:
        for across, down in _WAYS:
            if across and down:
                middle = (x + 0.6 * step * across, y + 0.8 * step * down)
            else:
                middle = (x + step * across, y + step * down)
            left = middle[0] - (0.5 - 0.5 * across) * length
            box = Box(left, middle[1] - height / 2, left + length, middle[1] + height / 2)
            anchor: Anchor = "start" if across > 0 else "end" if across < 0 else "middle"
            far = step > _STEPS[0]
            end = (middle[0] - 2 * across, middle[1] - (0 if across else 0.4 * height * down))
            leader = ((x, y), end) if far else None
            found.append((Placed((middle[0], middle[1] + 0.36 * size), anchor, leader), box))
    return found

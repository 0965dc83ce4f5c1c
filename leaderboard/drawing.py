"""A picture as a list of shapes, so that its SVG, its PNG and the one in the page are the same.

Coordinates are in CSS pixels from the top left. Nothing here knows what is plotted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Literal, TypeAlias

from tempeval.console import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Point: TypeAlias = tuple[float, float]
Anchor: TypeAlias = Literal["start", "middle", "end"]
MarkKind: TypeAlias = Literal["disc", "ring", "square", "diamond", "triangle"]

FONT = "DejaVu Sans, Verdana, sans-serif"
INK, SOFT, RULE, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"

# Okabe and Ito's palette, which readers with any common colour vision tell apart, without its
# yellow (too pale on white) and its black (the text).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKS: tuple[MarkKind, ...] = ("disc", "diamond", "triangle", "square", "ring")


@dataclass(frozen=True, slots=True)
class Style:
    """Presentation attributes; `name` is the class by which a page may give others.

    `size` is the height of text, `width` that of strokes, in pixels. `halo` is the width of a rim
    in the colour of the paper that keeps text readable on lines.
    """

    name: str
    stroke: str | None = None
    fill: str | None = None
    width: float = 1.0
    dash: tuple[float, ...] = ()
    size: float = 11.0
    bold: bool = False
    halo: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline."""

    points: tuple[Point, ...]
    style: Style


@dataclass(frozen=True, slots=True)
class Mark:
    """A symbol centred on a point; `radius` in pixels."""

    at: Point
    kind: MarkKind
    style: Style
    radius: float = 4.0


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `at` is on its baseline. `turned` reads upwards."""

    at: Point
    content: str
    style: Style
    anchor: Anchor = "start"
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Shapes that belong to one thing.

    Attributes:
        items: its shapes.
        name: what it is, for a screen reader and for a page's filter.
        tip: more about it, shown on hover and focus; lines end with newlines.
    """

    items: tuple[Line | Mark | Text, ...]
    name: str
    tip: str


Item: TypeAlias = "Line | Mark | Text | Group"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with a title and a description for those who do not see it."""

    name: str
    title: str
    description: str
    width: float
    height: float
    items: tuple[Item, ...] = field(default=())


def flat(items: Sequence[Item]) -> Iterator[Line | Mark | Text]:
    """Yield all shapes in the order in which they are drawn."""
    for item in items:
        if isinstance(item, Group):
            yield from item.items
        else:
            yield item


def outline(mark: Mark) -> tuple[Point, ...]:
    """Give the corners of a mark, none for round ones."""
    (x, y), r = mark.at, mark.radius
    if mark.kind == "square":
        r *= 0.886  # the area of the disc of this radius
        return ((x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r))
    if mark.kind == "diamond":
        r *= 1.253
        return ((x, y - r), (x + r, y), (x, y + r), (x - r, y))
    if mark.kind == "triangle":
        r *= 1.347
        return ((x, y - r), (x + 0.866 * r, y + 0.5 * r), (x - 0.866 * r, y + 0.5 * r))
    return ()


def to_svg(drawing: Drawing, *, inline: bool = False) -> str:
    """Write a drawing as SVG; same drawing, same bytes.

    Args:
        drawing: what to write.
        inline: for the inside of an HTML page: without namespace, background and pixel size,
            and with groups that can take the focus.

    Returns:
        An `<svg>` element whose texts are escaped.
    """
    key = escape(drawing.name, quote=True)
    size = f"{_number(drawing.width)} {_number(drawing.height)}"
    if inline:
        head = f'<svg class="plot" viewBox="0 0 {size}" role="group"'
    else:
        width, height = size.split()
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
            f'width="{width}" height="{height}" role="img"'
        )
    lines = [
        f'{head} aria-labelledby="{key}-title {key}-text" font-family="{FONT}">',
        f'<title id="{key}-title">{_text(drawing.title)}</title>',
        f'<desc id="{key}-text">{_text(drawing.description)}</desc>',
    ]
    if not inline:
        lines.append(f'<rect width="100%" height="100%" fill="{PAPER}"/>')
    first = True
    for item in drawing.items:
        if not isinstance(item, Group):
            lines.append(_shape(item))
            continue
        shapes = "".join(_shape(part) for part in item.items)
        if inline:
            place = 0 if first else -1
            first = False
            lines.append(
                f'<g class="point" role="img" tabindex="{place}" aria-label="{_one_line(item)}" '
                f'data-name="{_text(item.name)}" data-tip="{_text(item.tip)}">{shapes}</g>'
            )
        else:
            lines.append(f"<g><title>{_text(item.tip)}</title>{shapes}</g>")
    return "\n".join([*lines, "</svg>"]) + ("" if inline else "\n")


def _text(content: str) -> str:
    """Escape text for XML, with what XML may not hold made visible."""
    return escape(visible(content))


def _one_line(group: Group) -> str:
    return _text("; ".join(group.tip.splitlines()))


def _shape(item: Line | Mark | Text) -> str:
    look = _look(item.style)
    if isinstance(item, Line):
        return f'<polyline points="{_points(item.points)}"{look}/>'
    if isinstance(item, Mark):
        corners = outline(item)
        if corners:
            return f'<polygon points="{_points(corners)}"{look}/>'
        x, y = map(_number, item.at)
        return f'<circle cx="{x}" cy="{y}" r="{_number(item.radius)}"{look}/>'
    x, y = map(_number, item.at)
    turn = f' transform="rotate(-90 {x} {y})"' if item.turned else ""
    bold = ' font-weight="bold"' if item.style.bold else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{_number(item.style.size)}" '
        f'text-anchor="{item.anchor}"{bold}{turn}{look}>{_text(item.content)}</text>'
    )


def _look(style: Style) -> str:
    parts = [f' class="{style.name}" fill="{style.fill or "none"}"']
    if style.stroke:
        parts.append(f' stroke="{style.stroke}" stroke-width="{_number(style.width)}"')
    if style.halo:
        rim = _number(style.halo)
        parts.append(
            f' stroke="{PAPER}" stroke-width="{rim}" stroke-linejoin="round" paint-order="stroke"'
        )
    if style.dash:
        parts.append(f' stroke-dasharray="{" ".join(map(_number, style.dash))}"')
    return "".join(parts)


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """Print a coordinate: two decimals at most, no negative zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text

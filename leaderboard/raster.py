"""Draw a picture as PNG with matplotlib, in which nothing depends on the clock."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from tempeval.console import visible
from tempeval.leaderboard.drawing import PAPER, Line, Mark, flat, outline

if TYPE_CHECKING:
    from typing import Literal

    from tempeval.leaderboard.drawing import Drawing

_ALIGNMENT: dict[str, Literal["left", "center", "right"]] = {
    "start": "left",
    "middle": "center",
    "end": "right",
}
SCALE = 2.0  # pixels of the PNG for each pixel of the drawing


def to_png(drawing: Drawing) -> bytes:
    """Draw at twice the size; same drawing and same matplotlib, same bytes.

    A character that matplotlib's own font lacks is a box.

    Args:
        drawing: what to draw.

    Returns:
        The bytes of a PNG file without time stamps or program names.
    """
    # Imported here: a leaderboard that only prints does not pay for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text as Letters

    # At 72 dots per inch a point is a pixel, so that line widths and font sizes are in pixels.
    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72), dpi=72 * SCALE)
    figure.patch.set_facecolor(PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    axes.axis("off")
    for order, item in enumerate(flat(drawing.items)):
        style = item.style
        stroke = style.stroke or "none"
        if isinstance(item, Line):
            xs, ys = zip(*item.points, strict=True)
            line = Line2D(xs, ys, color=stroke, linewidth=style.width, zorder=order)
            if style.dash:
                line.set_linestyle((0, tuple(length / style.width for length in style.dash)))
            axes.add_line(line)
        elif isinstance(item, Mark):
            corners = outline(item)
            patch = Polygon(corners) if corners else Circle(item.at, item.radius)
            patch.set(facecolor=style.fill or "none", edgecolor=stroke, zorder=order)
            patch.set_linewidth(style.width if style.stroke else 0)
            axes.add_patch(patch)
        else:
            letters = Letters(
                *item.at,
                visible(item.content),
                color=style.fill,
                fontfamily="DejaVu Sans",
                fontsize=style.size,
                fontweight="bold" if style.bold else "normal",
                horizontalalignment=_ALIGNMENT[item.anchor],
                verticalalignment="baseline",
                rotation=90 if item.turned else 0,
                rotation_mode="anchor",
                parse_math=False,  # a dollar sign in a name is a dollar sign
                zorder=order,
            )
            if style.halo:
                letters.set_path_effects([withStroke(linewidth=style.halo, foreground=PAPER)])
            axes.add_artist(letters)
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        FigureCanvasAgg(figure).print_png(  # type: ignore[no-untyped-call]
            target, metadata={"Software": None}
        )
    return target.getvalue()

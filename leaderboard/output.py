"""Make the files of a leaderboard from its document, and from nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tempeval.leaderboard.csv_file import to_csv
from tempeval.leaderboard.drawing import to_svg
from tempeval.leaderboard.page import to_html
from tempeval.leaderboard.plots import drawings
from tempeval.leaderboard.raster import to_png
from tempeval.leaderboard.render import to_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tempeval.leaderboard.schema import Document

# The names that `plots` gives its drawings.
_PLOT = re.compile(r"(pareto|budget|differences)-[a-z0-9-]+\.(svg|png)")


def old_plots(out: Path, written: Iterable[str]) -> list[Path]:
    """Find the plots that an earlier build left in a folder; files with other names are not ours.

    Args:
        out: the output folder.
        written: paths relative to it that the present build writes.
    """
    kept = set(written)
    found = sorted((out / "plots").glob("*"))
    return [p for p in found if _PLOT.fullmatch(p.name) and f"plots/{p.name}" not in kept]


def files(document: Document) -> dict[str, bytes]:
    """Give the content of every file that shows a document.

    Args:
        document: the leaderboard, as built or as read from leaderboard.json.

    Returns:
        Path relative to the output folder -> content: leaderboard.md, index.html,
        leaderboard.csv, and each plot as SVG and as PNG. Same document, same bytes.
    """
    texts = {
        "leaderboard.md": to_markdown(document),
        "index.html": to_html(document),
        "leaderboard.csv": to_csv(document),
    }
    pictures = {}
    for drawing in drawings(document):
        texts[f"plots/{drawing.name}.svg"] = to_svg(drawing)
        pictures[f"plots/{drawing.name}.png"] = to_png(drawing)
    encoded = {name: content.encode(errors="backslashreplace") for name, content in texts.items()}
    return dict(sorted((encoded | pictures).items()))

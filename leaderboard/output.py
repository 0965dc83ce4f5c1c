"""Make the files of a leaderboard from its document, and from nothing else."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from tempeval.leaderboard.csv_file import to_csv
from tempeval.leaderboard.drawing import to_svg
from tempeval.leaderboard.errors import LeaderboardError
from tempeval.leaderboard.page import to_html
from tempeval.leaderboard.plots import drawings
from tempeval.leaderboard.raster import to_png
from tempeval.leaderboard.render import to_markdown
from tempeval.run.record import BadRecord, parse_object

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from tempeval.leaderboard.schema import Document

RECORD = "leaderboard.json"
# The names that a leaderboard gives its files: no other name is ours, whatever a list says.
_NAMES = re.compile(
    r"leaderboard\.(json|md|csv)|index\.html|plots/(pareto|budget|differences)-[a-z0-9-]+\.(svg|png)"
)


_ACTION = "Move or delete it, or choose another -o"


class Earlier(NamedTuple):
    """What an earlier build left in a folder: its files, and whether it compared anything."""

    files: frozenset[str]
    tables: bool


class NotOurs(LeaderboardError):
    """A folder in which a leaderboard would replace what an earlier one did not write."""


def earlier(out: Path) -> Earlier:
    """Read which files an earlier build wrote to a folder.

    Raises:
        NotOurs: its leaderboard.json is not that of a leaderboard, or of an older version, which
            does not say what it wrote.
    """
    path = out / RECORD
    try:
        found = parse_object(path, path.read_bytes(), "")
    except (FileNotFoundError, NotADirectoryError):
        return Earlier(frozenset(), tables=False)
    except BadRecord as error:
        raise NotOurs(f"{path} is not a leaderboard's ({error.reason}). {_ACTION}") from None
    names = found.get("files")
    if not isinstance(names, list) or not isinstance(found.get("tables"), list):
        raise NotOurs(
            f"{path} does not list the files that were written with it: it is not a "
            f"leaderboard's, or an older version's. {_ACTION}"
        )
    ours = {name for name in names if isinstance(name, str) and _NAMES.fullmatch(name)}
    return Earlier(frozenset(ours), tables=bool(found["tables"]))


def refuse_foreign(out: Path, contents: Mapping[str, bytes], ours: Collection[str]) -> None:
    """Refuse to replace files that no earlier build wrote; equal ones lose nothing.

    Args:
        out: the output folder.
        contents: path relative to it -> what would be written.
        ours: paths that an earlier build wrote.

    Raises:
        NotOurs: naming them.
    """
    foreign = [
        name
        for name, content in sorted(contents.items())
        if name not in ours and os.path.lexists(out / name) and not _holds(out / name, content)
    ]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise NotOurs(
            f"{', '.join(str(out / name) for name in foreign[:3])}{more} would be replaced, and no "
            f"leaderboard wrote it there. {_ACTION}"
        )


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False


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

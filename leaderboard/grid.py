"""A table to be printed: rows of text with values, which markdown and page both show.

Texts are plain; who prints them escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Order: TypeAlias = Literal["ascending", "descending"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, which order is asked for first, and what it says.

    `detail` names what its cells print after their text, such as '[95 % CI]'. `is_wide` asks for
    room for sentences.
    """

    name: str
    first: Order = "descending"
    about: str = ""
    detail: str = ""
    is_text: bool = False
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell.

    Attributes:
        text: what is printed.
        value: what a page sorts by, None where it is missing.
        detail: an interval or standard error, printed after the text.
        tip: more of it, shown on hover and focus; lines end with newlines.
        strong: True where the corrected test says that there is a difference.
        level: -4 (much worse than the baseline) to 4 (much better), for colours.
        href: an https address that a page links to.
    """

    text: str
    value: float | str | None = None
    detail: str = ""
    tip: str = ""
    strong: bool = False
    level: int = 0
    href: str = ""


@dataclass(frozen=True, slots=True)
class GridRow:
    """A row; `label` is what it is about, `method` the same without settings.

    `run` is the name of the run behind it, empty where there are several. `words` are what a filter
    finds it by besides its label.
    """

    label: str
    method: str
    cells: tuple[Cell, ...]
    is_baseline: bool = False
    run: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; it has one more column than a row has cells: the first is the labels'."""

    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]

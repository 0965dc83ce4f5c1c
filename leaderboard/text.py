"""Numbers and names as short text: one place for digits, signs, units and escaping."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.board import Cell, Table, Task
    from tempeval.leaderboard.stats import Interval

MISSING = "-"
_LONGEST = 300
_KIB = 1024.0


def escape(text: str) -> str:
    """Make text from a record safe in markdown: one line, no markup, at most 300 characters."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]}..."
    for plain, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(plain, safe)
    for mark in "\\`*[]|":
        line = line.replace(mark, f"\\{mark}")
    return line


def code(text: str) -> str:
    """Give a name from a record as inline code, in which only backticks and pipes matter."""
    line = " ".join(text.split())[:_LONGEST]
    return f"`{line.replace('`', chr(39)).replace('|', '/') or '-'}`"


def short(digest: str) -> str:
    """Shorten a digest or commit to its first 8 characters."""
    return digest.removeprefix("sha256:")[:8]


def score(value: float | None, fraction: bool) -> str:
    """Print a score: percent with one decimal for fractions, 3 decimals otherwise."""
    if value is None:
        return MISSING
    return f"{100 * value:.1f}" if fraction else f"{value:.3f}"


def signed(value: float | None, fraction: bool) -> str:
    """Print a difference with its sign; what rounds to zero has none."""
    if value is None:
        return MISSING
    text = f"{100 * value:+.1f}" if fraction else f"{value:+.3f}"
    return text[1:] if not text.strip("+-0.") else text


def difference(value: float | None, interval: Interval | None, fraction: bool) -> str:
    """Print a difference with its interval, '[-]' where there is none."""
    if value is None:
        return MISSING
    if interval is None:
        return f"{signed(value, fraction)} [-]"
    ends = f"{signed(interval.low, fraction)}, {signed(interval.high, fraction)}"
    return f"{signed(value, fraction)} [{ends}]"


def with_error(cell: Cell, fraction: bool) -> str:
    """Print a score and its standard error."""
    if cell.se is None:
        return score(cell.score, fraction)
    return f"{score(cell.score, fraction)} ± {score(cell.se, fraction)}"


def count(value: float | None) -> str:
    """Print a mean number of tokens: one decimal unless whole or 1000 and more."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if value >= 1000 or value == round(value) else f"{value:.1f}"


def size(value: float | None) -> str:
    """Print bytes in B, KiB, MiB or GiB with 3 significant digits."""
    if value is None:
        return MISSING
    for unit in ("B", "KiB", "MiB"):
        if value < 999.5:
            return f"{_digits(value)} {unit}"
        value /= _KIB
    return f"{_digits(value)} GiB"


def seconds(value: float | None) -> str:
    """Print seconds with 3 significant digits, at most 4 decimals."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if value < 0.1 else _digits(value)


def share(value: float | None) -> str:
    """Print a rate in percent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def columns(tasks: Sequence[Task]) -> list[str]:
    """Name the task columns: names less the words that all of them start with.

    A down arrow marks tasks where lower is better.
    """
    words = [task.name.split("_") for task in tasks]
    cut = 0
    if len(words) > 1:
        shortest = min(len(parts) for parts in words)
        while cut < shortest - 1 and len({parts[cut] for parts in words}) == 1:
            cut += 1
    elif len(words[0]) > 1 and words[0][0] == "tempeval":
        cut = 1
    names = ["_".join(parts[cut:]) for parts in words]
    arrows = ["" if task.higher_is_better else " ↓" for task in tasks]
    return [escape(name) + arrow for name, arrow in zip(names, arrows, strict=True)]


def is_mini(table: Table) -> bool:
    """Tell whether a table is about a checkpoint of the mini suite."""
    parts = PurePosixPath(table.model.replace("\\", "/")).parts
    named = len(parts) == 1 and parts[0].partition(":")[0] == "mini"
    return named or ("mini", "checkpoints") in itertools.pairwise(parts)


def _digits(value: float) -> str:
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"

"""Numbers and names as short text: one place for digits, signs, units and escaping."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from tempeval.console import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.leaderboard.schema import Interval, IntervalKind, Task, Videos

MISSING = "-"
#: Marks an interval that could not be studentised; a note below the table explains it.
ROUGH = "†"
_LONGEST = 300
# Marks that markdown reads anywhere, an underscore where no letters or digits are on both sides.
_MARKS = re.compile(r"[\\`*\[\]|~]|(?<!\w)_+|_+(?!\w)")
# What GitHub makes into addresses, and what it makes into formulas, people, issues and pictures,
# which no backslash stops.
_ADDRESS = re.compile(r"(?i)(?<=http)(s?):(?=//)|(?<=ftp):(?=//)|(?<=www)\.")
_SPECIAL = re.compile(r"\$|@(?=\w)|#(?=\d)|:(?=(?:[\w+-]*[a-z][\w+-]*|[+-]1|100):)")
_KIB = 1024.0


def escape(text: str, longest: int = _LONGEST) -> str:
    """Make text from a record safe in GitHub's markdown: one line, and nothing in it is markup.

    A text longer than `longest` characters is cut and gets a digest of the whole, so that two
    that differ later stay apart.
    """
    line = _cut(clean(text), longest)
    for plain, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(plain, safe)
    line = _MARKS.sub(lambda found: "".join(f"\\{mark}" for mark in found[0]), line)
    line = _SPECIAL.sub(lambda found: f"<span>{found[0]}</span>", line)
    return _ADDRESS.sub(lambda found: f"{found[1] or ''}\\{found[0][-1]}", line)


def code(text: str) -> str:
    """Give a name from a record as inline code, fenced by more backticks than it has in a row."""
    line = _cut(clean(text), _LONGEST) or MISSING
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def _cut(line: str, longest: int) -> str:
    if len(line) <= longest:
        return line
    digest = hashlib.sha256(line.encode(errors="backslashreplace")).hexdigest()
    return f"{line[:longest]}... ({digest[:8]})"


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


def interval(ends: Interval | None, fraction: bool, kind: IntervalKind | None) -> str:
    """Print the ends of an interval of differences, '[-]' where there is none."""
    if ends is None:
        return f"[{MISSING}]"
    mark = ROUGH if kind == "percentile_fallback" else ""
    return f"[{signed(ends['low'], fraction)}, {signed(ends['high'], fraction)}]{mark}"


def span(ends: Interval | None, fraction: bool) -> str:
    """Print the ends of an interval of scores, '[-]' where there is none."""
    if ends is None:
        return f"[{MISSING}]"
    return f"[{score(ends['low'], fraction)}, {score(ends['high'], fraction)}]"


def error(value: float | None, fraction: bool) -> str:
    """Print a standard error after the score it belongs to, nothing where there is none."""
    return "" if value is None else f"± {score(value, fraction)}"


def p_value(value: float | None) -> str:
    """Print a p-value: three decimals, and '<0.001' below that."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


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


def tera(value: float | None) -> str:
    """Print operations in TFLOPs with 3 significant digits."""
    return MISSING if value is None else f"{value / 1e12:#.3g}".rstrip(".")


def seconds(value: float | None) -> str:
    """Print seconds with 3 significant digits, at most 4 decimals."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if value < 0.1 else _digits(value)


def share(value: float | None) -> str:
    """Print a rate in percent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def flags(found: Mapping[str, int]) -> str:
    """Print how many videos have each defect, such as 'truncated 2, corrupt_packets 1'."""
    return ", ".join(
        f"{name} {n}" for name, n in sorted(found.items(), key=lambda f: (-f[1], f[0]))
    )


def damage(found: Videos) -> str:
    """Print how many videos are damaged, such as '1 of 5 videos damaged: truncated 1'."""
    return f"{found['damaged']} of {found['total']} videos damaged: {flags(found['flags'])}"


def columns(tasks: Sequence[Task]) -> list[str]:
    """Name the task columns: names less the words that all of them start with.

    A down arrow marks tasks where lower is better.
    """
    words = [task["name"].split("_") for task in tasks]
    cut = 0
    if len(words) > 1:
        shortest = min(len(parts) for parts in words)
        while cut < shortest - 1 and len({parts[cut] for parts in words}) == 1:
            cut += 1
    elif len(words[0]) > 1 and words[0][0] == "tempeval":
        cut = 1
    names = ["_".join(parts[cut:]) for parts in words]
    arrows = ["" if task["higher_is_better"] else " ↓" for task in tasks]
    return [name + arrow for name, arrow in zip(names, arrows, strict=True)]


def _digits(value: float) -> str:
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"

"""What a reader must know of how a table came about; plain text, escaped by who prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.leaderboard import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.leaderboard.schema import Row, Table


def caveats(table: Table) -> Iterator[str]:
    """Give one sentence or a few for each caveat."""
    yield from _own_frames(table["rows"])
    yield from table["notes"]
    for row in table["rows"]:
        yield from _answered(table, row)


def _own_frames(rows: Sequence[Row]) -> Iterator[str]:
    """Name the methods that see another number of frames than the baseline, as measured."""
    seen = {
        row["label"]: row["costs"]["measures"]["frames"]
        for row in rows
        if row["costs"] is not None and row["costs"]["measures"]["frames"] is not None
    }
    base = next((seen.get(row["label"]) for row in rows if row["is_baseline"]), None)
    own = [
        f"{label} {text.count(value)}"
        for label, value in seen.items()
        if base is not None and value != base
    ]
    if own:
        yield f"The frames above are the baseline's; other methods see: {', '.join(own)}."


def _answered(table: Table, row: Row) -> Iterator[str]:
    """Give a method's differences without failed questions, where failures differ."""
    names = text.columns(table["tasks"])
    shown = []
    for name, task, cell in zip(names, table["tasks"], row["cells"], strict=True):
        if cell is None or (both := cell["both_answered"]) is None:
            continue
        p = both["p_holm"] if table["ranked"] else both["p"]
        gap = text.signed(both["difference"], task["fraction"])
        shown.append(f"{name} {gap} ({both['n']} of {cell['n']} questions, p {text.p_value(p)})")
    if shown:
        yield (
            f"{row['label']} and the baseline failed on other questions. Differences over those "
            f"that both answered: {', '.join(shown)}. Bold needs the test to hold there too."
        )

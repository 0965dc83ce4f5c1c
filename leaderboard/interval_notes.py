"""What a reader must know of the intervals of a table: which are rough, why others are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.leaderboard import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard.schema import Table


def interval_notes(table: Table) -> Iterator[str]:
    """Say which intervals are rough, and why others are missing."""
    kinds = [row["macro_interval_kind"] for row in table["rows"]]
    kinds += [cell["interval_kind"] for row in table["rows"] for cell in row["cells"] if cell]
    if "percentile_fallback" in kinds:
        yield (
            f"{text.ROUGH} The clusters that differ are too few for a studentised interval; this "
            "one is of percentiles and too narrow."
        )
    lost = [
        row["label"]
        for row in table["rows"]
        if row["macro_difference"] is not None and row["macro_interval"] is None
    ]
    if lost and table["clusters"] < 2:
        yield "No intervals and tests: all questions are in one cluster."
    elif lost:
        yield (
            f"No interval of the macro difference ([{text.MISSING}]) for {', '.join(lost)}: more "
            "than 1 % of the draws left a task without questions, because its clusters are few."
        )

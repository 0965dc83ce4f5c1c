"""Write a document as CSV: one row for each table, method and task."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from tempeval.console import clean
from tempeval.leaderboard import describe
from tempeval.leaderboard.text import flags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard.schema import Cell, Document, Interval, Row, Table, Videos

#: Column -> what it holds; `docs/leaderboard.md` says the same.
COLUMNS = {
    "table": "id of the table in leaderboard.json",
    "heading": "its heading",
    "ranked": "1, or 0 for a trial run",
    "model": "base model",
    "model_revision": "commit or weight digest",
    "match_on": "the measure that is the budget",
    "budget": "the baseline's mean over the task's questions",
    "task": "task",
    "task_version": "its version",
    "metric": "name of the score",
    "higher_is_better": "1 or 0",
    "method": "method without settings",
    "label": "method with settings",
    "fingerprint": "digest of method and settings",
    "is_baseline": "1 or 0",
    "run": "run folder",
    "n": "questions",
    "clusters": "clusters of questions",
    "score": "mean score, on the task's scale",
    "se": "its clustered standard error",
    "score_low": "low end of its interval",
    "score_high": "high end",
    "difference": "score minus the baseline's",
    "low": "low end of its interval",
    "high": "high end",
    "interval_kind": "percentile, studentised, or percentile_fallback (too narrow)",
    "difference_se": "its clustered standard error",
    "p": "sign-flip test, uncorrected",
    "p_holm": "corrected over the table",
    "significant": "1 or 0",
    "mde": "minimum detectable effect",
    "wins": "questions better than the baseline",
    "ties": "the same",
    "losses": "worse",
    "mcnemar_p": "exact McNemar test, where it holds",
    "score_by_sum": "score by the sum of log-likelihoods",
    "parse_failure_rate": "share of unparsed answers",
    "failed": "questions with an error",
    "unparsed": "answers that could not be parsed",
    "damaged": "questions answered over a damaged video",
    "skipped": "questions left out because their video is not there",
    "videos": "videos asked about",
    "damaged_videos": "those that decode with a defect",
    "damage": "the defects, with how many videos have each",
}
# A spreadsheet takes text that starts with one of these for a formula; of full width, some do.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def columns(document: Document) -> list[str]:
    """Give the names of the columns: COLUMNS, then the measures of costs."""
    return [*COLUMNS, *document["measures"]]


def to_csv(document: Document) -> str:
    r"""Give the rows in the order of the document.

    Numbers are as in the document; a value that is not known is empty. Text that a spreadsheet
    would take for a formula has an apostrophe before it. Lines end with \n.

    Args:
        document: the leaderboard.

    Returns:
        CSV with a header, UTF-8 once encoded.
    """
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns(document))
    for values in lines(document):
        writer.writerow([_plain(value) for value in values])
    return target.getvalue()


def lines(document: Document) -> Iterator[list[Any]]:
    """Yield one line for each table, method and task: values in the order of `columns`.

    Args:
        document: the leaderboard.
    """
    for heading, table in zip(describe.headings(document), document["tables"], strict=True):
        for row in table["rows"]:
            for place, cell in enumerate(row["cells"]):
                if cell is not None:
                    yield list(_values(document, heading, table, place, row, cell))


def _values(
    document: Document, heading: str, table: Table, place: int, row: Row, cell: Cell
) -> Iterator[Any]:
    """Yield the values of a line, in the order of `columns`."""
    task = table["tasks"][place]
    yield from (table["id"], heading, table["ranked"], table["model"])
    yield from (table["setting"]["model_revision"], table["match_on"])
    yield table["budgets"][place]
    yield from (task["name"], task["version"], task["metric"], task["higher_is_better"])
    yield from (row["method"], row["label"], row["fingerprint"], row["is_baseline"])
    yield from (cell["run"], cell["n"], cell["clusters"], cell["score"], cell["se"])
    yield from _ends(cell["score_interval"])
    yield cell["difference"]
    yield from _ends(cell["interval"])
    yield from (cell["interval_kind"], cell["difference_se"])
    yield from (cell["p"], cell["p_holm"], cell["significant"])
    yield from (cell["mde"], cell["wins"], cell["ties"], cell["losses"], cell["mcnemar_p"])
    costs = cell["costs"]
    yield from (cell["score_by_sum"], costs["parse_failure_rate"], costs["failed"])
    yield from (costs["unparsed"], costs["damaged"], costs["skipped"])
    yield from _videos(cell["videos"])
    yield from (costs["measures"].get(name) for name in document["measures"])


def _videos(found: Videos | None) -> tuple[int | None, int | None, str | None]:
    if found is None:
        return None, None, None
    return found["total"], found["damaged"], flags(found["flags"])


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval["low"], interval["high"])


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        shown = clean(value)
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
    return value

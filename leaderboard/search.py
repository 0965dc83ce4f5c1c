"""What the page's filter finds a row or a point by: its method, its tasks and its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tempeval.leaderboard.schema import Document, Row, Run, Table


def row_words(table: Table, row: Row, place: int | None = None) -> str:
    """Give the tasks that a row has and the runs behind them.

    Args:
        table: of the document.
        row: of the table.
        place: of the only task that is meant; None for all.
    """
    pairs = zip(table["tasks"], row["cells"], strict=True)
    known = [(task["name"], cell["run"]) for task, cell in pairs if cell is not None]
    if place is not None:
        cell = row["cells"][place]
        known = [(table["tasks"][place]["name"], cell["run"])] if cell is not None else []
    return " ".join(dict.fromkeys(word for pair in known for word in pair))


def point_words(document: Document, task: str | None) -> dict[tuple[str, str], str]:
    """Give the same for the points of a plot: (id of the table, fingerprint) -> words.

    Args:
        document: the leaderboard.
        task: that is plotted; None for the mean of all.
    """
    words = {}
    for table in document["tables"]:
        names = [asked["name"] for asked in table["tasks"]]
        place = names.index(task) if task in names else None
        for row in table["rows"]:
            words[table["id"], row["fingerprint"]] = row_words(table, row, place)
    return words


def run_words(run: Run) -> str:
    """Give what a run is found by: its name, method, model, status and tasks."""
    tasks = run["facts"].get("tasks")
    names = list(tasks) if isinstance(tasks, dict) else []
    versions = run["facts"].get("versions")  # of a run of lmms-eval, by task
    names += list(versions) if isinstance(versions, dict) else []
    return " ".join([run["name"], run["label"], run["model"], run["status"], *map(str, names)])

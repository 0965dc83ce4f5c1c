"""The lists of a leaderboard: what is not comparable, published numbers, and the runs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tempeval.leaderboard import text
from tempeval.leaderboard.grid import Cell, Column, Grid, GridRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard import schema

# The kinds of `schema.Kind` in words, in the order in which they are listed.
KINDS = {
    "unreadable": "could not be read",
    "unfinished": "not finished",
    "inconsistent": "counts that contradict each other",
    "failures": "failed questions",
    "damaged": "too many damaged videos",
    "duplicate": "there twice",
    "older_version": "older task version",
    "limit": "trial run",
    "stock": "lmms-eval run without a record",
    "unmeasured": "budget not measured",
    "unscored": "no score",
    "settings": "other settings",
    "budget": "another budget",
    "no_baseline": "no baseline",
}


def which_tasks(found: schema.NotComparable, runs: Sequence[schema.Run]) -> str:
    """Name the tasks that an entry concerns, shortly where it is all of them."""
    asked = {run["name"]: run["facts"].get("tasks") for run in runs}.get(found["run"])
    count = len(found["tasks"])
    if count > 1 and isinstance(asked, dict) and len(asked) == count:
        return f"all {count} tasks"
    return ", ".join(found["tasks"])


def known_scores(found: schema.NotComparable) -> str:
    """Print what is known of an entry all the same, such as 'order 61.2'.

    A run that is not ours may have any metric, so that it is named, with its error and size.
    """
    is_stock = found["kind"] == "stock"
    return ", ".join(
        f"{score['task'].removeprefix('tempeval_')} "
        f"{_foreign(score) if is_stock else text.score(score['score'], bool(score['fraction']))}"
        for score in found["scores"]
        if score["score"] is not None
    )


def _foreign(score: schema.ListedScore) -> str:
    """Print a score of which only the mean is known: in percent, as ours, where it may be one."""
    value = score["score"]
    fraction = value is not None and 0 <= value <= 1
    size = "" if score["n"] is None else f", {score['n']} questions"
    error = text.error(score["se"], fraction)
    return f"{text.score(value, fraction)} {error} ({score['metric']}{size})".replace("  ", " ")


def refused(document: schema.Document) -> list[schema.NotComparable]:
    """Give what is compared with nothing: all that is not ranked, but trial runs."""
    return [found for found in document["not_comparable"] if found["kind"] != "limit"]


def not_comparable(document: schema.Document) -> Grid:
    """Give what is compared with nothing, with both values, the reason and what to do."""
    columns = (
        Column("run", "ascending", is_text=True),
        Column("method", "ascending", is_text=True),
        Column("tasks", "ascending", is_text=True),
        Column("what", "ascending", "the kind of reason, and what differs", is_text=True),
        Column("this run", "ascending", is_text=True),
        Column("other", "ascending", "the baseline's value, or what is accepted", is_text=True),
        Column("why, and what to do", "ascending", is_text=True, is_wide=True),
        Column("scores", "ascending", "known, and not ranked", is_text=True),
    )
    rows = [
        GridRow(
            found["run"],
            "",
            tuple(
                Cell(words or text.MISSING)
                for words in (
                    found["method"],
                    which_tasks(found, document["runs"]),
                    f"{KINDS.get(found['kind'], found['kind'])}: {found['field']}",
                    found["value"],
                    found["other"],
                    f"{found['reason']}. {found['action']}.",
                    known_scores(found),
                )
            ),
            run=found["run"],
            words=" ".join(found["tasks"]),
        )
        for found in refused(document)
    ]
    return Grid(columns, tuple(rows))


def references(document: schema.Document) -> Grid:
    """Give the published numbers, each with its source."""
    columns = (
        Column("task", "ascending", is_text=True),
        Column("method", "ascending", is_text=True),
        Column("model", "ascending", is_text=True),
        Column("frames", "ascending"),
        Column("metric", "ascending", is_text=True),
        Column("value", "descending", "as published"),
        Column("table", "ascending", "where in the source", is_text=True),
        Column("source", "ascending", is_text=True),
    )
    rows = []
    for found in document["references"]:
        frames = text.MISSING if found["frames"] is None else str(found["frames"])
        number = found["frames"] if isinstance(found["frames"], int) else None
        cells = (
            Cell(found["method"]),
            Cell(found["model"]),
            Cell(frames, number),
            Cell(found["metric"]),
            Cell(f"{found['value']:g}", found["value"]),
            Cell(found["table"]),
            Cell(found["source"], tip=_details(found), href=_address(found)),
        )
        rows.append(GridRow(found["task"], "", cells))
    return Grid(columns, tuple(rows))


def _details(found: schema.Reference) -> str:
    return "\n".join(f"{name}: {value}" for name, value in found["details"].items())


def _address(found: schema.Reference) -> str:
    """Give the source's address, where it is one that a page may link to."""
    address = found["details"].get("url")
    return address if isinstance(address, str) and address.startswith("https://") else ""


def provenance(document: schema.Document) -> Grid:
    """Give one row per run: what it was, and when it ended."""
    columns = (
        Column("run", "ascending", is_text=True),
        Column("method", "ascending", is_text=True),
        Column("fingerprint", "ascending", is_text=True),
        Column("model", "ascending", is_text=True),
        Column("revision", "ascending", is_text=True),
        Column("status", "ascending", is_text=True),
        Column("finished", "ascending", is_text=True),
        Column("wall s", "ascending", "seconds of the whole run"),
    )
    rows = []
    for run in document["runs"]:
        wall = run["wall_seconds"]
        cells = (
            Cell(run["label"] or text.MISSING),
            Cell(text.short(run["fingerprint"]) or text.MISSING),
            Cell(run["model"] or text.MISSING),
            Cell(text.short(run["model_revision"]) or text.MISSING),
            Cell(run["status"]),
            Cell(run["finished"] or text.MISSING),
            Cell(text.MISSING if wall is None else f"{wall:.0f}", wall),
        )
        rows.append(GridRow(run["name"], "", cells, run=run["name"]))
    return Grid(columns, tuple(rows))


def versions(runs: Sequence[schema.Run]) -> dict[str, list[str]]:
    """Group the names of runs by the versions of the packages that made them."""
    found: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        packages = dict(run["packages"])
        if run["tempeval_version"]:
            packages["tempeval"] = run["tempeval_version"]
        line = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        found[line or "versions unknown"].append(run["name"])
    return dict(found)

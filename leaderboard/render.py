"""Write a document as GitHub-flavoured markdown; same document, same bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tabulate import tabulate

from tempeval.console import clean
from tempeval.leaderboard import describe, grids, lists, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tempeval.leaderboard.grid import Cell, Grid
    from tempeval.leaderboard.schema import Document, NotComparable, Table

_LONGEST_LINE = 2000
# What would make a line a heading, an item or a rule: marks at its start, or a number's full stop.
_BLOCK = re.compile(r"^(\d*)(#+(?=\s|$)|[-+=](?=[-=\s]|$)|(?<=\d)[.)](?=\s|$))")


def to_markdown(document: Document) -> str:
    """Give the whole leaderboard."""
    lines = ["# Leaderboard", "", describe.lead(document), ""]
    lines += [f"- {line}" for line in describe.legend(document)]
    for heading, table in zip(describe.headings(document), document["tables"], strict=True):
        lines += ["", f"## {text.escape(heading)}", "", *_summary(table)]
        lines += [*_heat(document, table), *_costs(table), *_tasks(table)]
    if not document["tables"]:
        lines += ["", "No run could be compared; the reasons follow."]
    lines += ["", "## Not comparable", "", *_not_comparable(document)]
    if document["references"]:
        lines += ["", "## Published numbers", "", describe.REFERENCES, ""]
        lines.append(_grid(lists.references(document)))
    lines += ["", "## Provenance", "", *_provenance(document)]
    return "\n".join(lines) + "\n"


def to_summary(document: Document) -> str:
    """Give what fits a terminal: the summary tables and how many runs are in none.

    It looks like markdown, but nothing is escaped: a terminal shows what it gets.
    """
    lines: list[str] = []
    for heading, table in zip(describe.headings(document), document["tables"], strict=True):
        lines += [f"## {clean(heading)}", "", *_summary(table, clean), ""]
    if not document["tables"]:
        lines += ["No run could be compared.", ""]
    return "\n".join([*lines, describe.left_out(document)]) + "\n"


def to_block(document: Document) -> str:
    """Give the summary tables for a block of another document, such as a README.

    Headings are bold lines, so that they do not interrupt the document's own.
    """
    lines: list[str] = []
    for heading, table in zip(describe.headings(document), document["tables"], strict=True):
        lines += [f"**{text.escape(heading)}**", "", *_summary(table), ""]
    if not document["tables"]:
        lines += ["No run could be compared.", ""]
    runs = len(document["runs"])
    made = f"{runs} {'run' if runs == 1 else 'runs'}, tempeval {document['tempeval_version']}"
    return "\n".join([*lines, f"{describe.left_out(document)} Made from {made}."]) + "\n"


def _summary(table: Table, show: Callable[[str], str] | None = None) -> Iterator[str]:
    """Give a table's facts, its notes, and the scores of all tasks.

    Args:
        table: of the document.
        show: what is done to texts; they are escaped when it is None.
    """
    prose = show or _prose
    yield prose(describe.facts(table))
    for note in describe.notes(table):
        yield ""
        yield f"> {prose(note)}"
    yield ""
    yield _grid(grids.summary(table), show or text.escape)


def _heat(document: Document, table: Table) -> Iterator[str]:
    grid = grids.heat(table)
    if grid is not None:
        yield from ("", "### Differences by method and task", "")
        yield _prose(describe.heat_caption(document, table))
        yield ""
        yield _grid(grid)


def _tasks(table: Table) -> Iterator[str]:
    for place, task in enumerate(table["tasks"]):
        yield from ("", f"### {text.escape(task['name'])}", "")
        yield _prose(describe.task_facts(task))
        # Of a table of one task, the summary has said it.
        for note in describe.task_notes(table, place) if len(table["tasks"]) > 1 else ():
            yield ""
            yield f"> {_prose(note)}"
        yield ""
        yield _grid(grids.task(table, place))


def _costs(table: Table) -> Iterator[str]:
    grid = grids.costs(table)
    if grid is not None:
        yield from ("", "### Costs", "", _grid(grid))


def _not_comparable(document: Document) -> Iterator[str]:
    found = lists.refused(document)
    if not found:
        yield "Every run was comparable."
    for each in found:
        yield f"- {_refusal(document, each)}"
    if trials := describe.trials(document):
        yield from ("", _prose(trials))


def _refusal(document: Document, found: NotComparable) -> str:
    method = f" {text.escape(found['method'])}" if found["method"] else ""
    tasks = lists.which_tasks(found, document["runs"])
    tasks = f" ({text.escape(tasks)})" if tasks else ""
    other = f" against {text.code(found['other'])}" if found["other"] else ""
    scores = lists.known_scores(found)
    scores = f" Not ranked: {text.escape(scores)}." if scores else ""
    return (
        f"{text.code(found['run'])}{method}{tasks}, {text.escape(found['field'])} "
        f"{text.code(found['value'])}{other}: {text.escape(found['reason'])}. "
        f"{text.escape(found['action'])}.{scores}"
    )


def _provenance(document: Document) -> Iterator[str]:
    yield f"Built by tempeval {text.escape(document['tempeval_version'])}."
    if not document["runs"]:
        return
    yield ""
    yield _grid(lists.provenance(document))
    yield ""
    for versions, names in lists.versions(document["runs"]).items():
        everywhere = len(names) == len(document["runs"])
        where = "all runs" if everywhere else ", ".join(map(text.code, names))
        yield f"- {_prose(versions)}: {where}"


def _prose(line: str) -> str:
    """Escape a sentence in which names from records stand, and which may be a line of its own."""
    shown = text.escape(line, longest=_LONGEST_LINE)
    return _BLOCK.sub(r"\1\\\2", shown)


def _grid(grid: Grid, show: Callable[[str], str] = text.escape) -> str:
    """Lay out a pipe table, numbers to the right.

    tabulate widens every column by two when it knows the header; given as a row, the header
    costs no width, and the rule above it moves below.
    """
    header = [
        show(column.name) + (f" {column.detail}" if column.detail else "")
        for column in grid.columns
    ]
    align = ["left" if column.is_text else "right" for column in grid.columns]
    body = [[show(row.label), *[_cell(cell, show) for cell in row.cells]] for row in grid.rows]
    lines = tabulate([header, *body], tablefmt="pipe", colalign=align, disable_numparse=True)
    rule, names, *rest = lines.split("\n")
    return "\n".join([names, rule, *rest])


def _cell(cell: Cell, show: Callable[[str], str]) -> str:
    shown = show(cell.text)
    shown = f"**{shown}**" if cell.strong else shown
    return f"{shown} {cell.detail}".rstrip()

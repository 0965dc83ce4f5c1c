"""Write a document as one HTML page that needs nothing else: no network, no other file.

Everything from a record is escaped by the template engine; the page's policy allows its own
style and script only, by their digests, so that nothing else could run even if it got in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tempeval.console import visible
from tempeval.leaderboard import describe, differences, grids, lists, plots
from tempeval.leaderboard.drawing import to_svg
from tempeval.leaderboard.search import run_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.leaderboard.figures import Figure
    from tempeval.leaderboard.schema import Document, Table


def to_html(document: Document) -> str:
    """Give the page: tables, differences, plots, what is not comparable, and every run.

    Args:
        document: the leaderboard.

    Returns:
        HTML; same document, same bytes.
    """
    environment = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["label_parts"] = label_parts
    environment.filters["breakable"] = _breakable
    environment.filters["run_words"] = run_words
    style, script = _file("style.css"), _file("script.js")
    headings = describe.headings(document)
    shown = differences.differences(document)
    return environment.get_template("page.html").render(
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=_digest(style),
        script_hash=_digest(script),
        version=document["tempeval_version"],
        lead=describe.lead(document),
        legend=describe.legend(document),
        models=sorted({table["model"] for table in document["tables"]}),
        sections=[
            _section(document, table, heading, shown)
            for heading, table in zip(headings, document["tables"], strict=True)
        ],
        headings={
            table["id"]: heading
            for heading, table in zip(headings, document["tables"], strict=True)
        },
        panels=[
            {
                "title": panel.title,
                "notes": panel.notes,
                "is_part": panel.is_part,
                "figures": [_figure(figure) for figure in panel.figures],
            }
            for panel in plots.panels(document)
        ],
        not_comparable=lists.not_comparable(document),
        trials=describe.trials(document),
        references=lists.references(document),
        references_text=describe.REFERENCES,
        runs=document["runs"],
        run_ids={run["name"]: run["id"] for run in document["runs"]},
        versions=lists.versions(document["runs"]),
    )


def label_parts(label: str, method: str) -> list[tuple[str, bool]]:
    """Split a printed name into the method's own names and what is only a setting or a remark.

    Args:
        label: such as 'pas[unit=position]+kv_quant (remark)'.
        method: the same without settings; empty where the label is no method.

    Returns:
        The pieces in order, and whether each is a setting; together they are the label.
    """
    if not method:
        return [(label, False)]
    pieces = re.split(r"(\[[^\]]*\]| \(.*\)$)", label)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]


def _breakable(value: str, marks: str) -> Markup:
    """Let a long name break after each of the marks that join its parts."""
    pieces = re.split(f"(?<=[{re.escape(marks)}])", visible(value))
    return Markup("<wbr>").join(pieces)


def _section(
    document: Document,
    table: Table,
    heading: str,
    shown: Mapping[tuple[str, int | None], Figure],
) -> dict[str, Any]:
    def difference(place: int | None) -> dict[str, Any] | None:
        found = shown.get((table["id"], place))
        return None if found is None else _figure(found)

    return {
        "id": table["id"],
        "heading": heading,
        "facts": describe.facts(table),
        "notes": list(describe.notes(table)),
        "summary": grids.summary(table),
        "costs": grids.costs(table),
        "heat": grids.heat(table),
        "heat_caption": describe.heat_caption(document, table),
        "difference": difference(None),
        "tasks": [
            {
                "name": task["name"],
                "facts": describe.task_facts(task),
                "notes": [*describe.task_notes(table, place)] if len(table["tasks"]) > 1 else [],
                "grid": grids.task(table, place),
                "difference": difference(place),
            }
            for place, task in enumerate(table["tasks"])
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    drawing = figure.drawing
    return {
        "name": drawing.name,
        "title": drawing.title,
        "caption": figure.caption,
        "svg": Markup(to_svg(drawing, inline=True)),  # noqa: S704 - to_svg escapes
    }


def _file(name: str) -> str:
    return (resources.files("tempeval.leaderboard") / "page" / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _visible(value: Any) -> Any:
    """Make what a template prints visible before it is escaped; a percent sign keeps its number."""
    return visible(value).replace(" %", "\u00a0%") if type(value) is str else value
